'use strict';

require('../instrument');

const { BookingMonitorError } = require('../lib/errors');
const { run } = require('../lib/service');

let visits = 0;

/** A record as the booking service sends it; some come without a staff member. */
function nextBooking() {
  visits += 1;
  return {
    id: visits,
    company: { id: 962302, branch: { city: 'Example', timezone: 'Europe/Berlin' } },
    visit: { services: [{ id: 18, title: 'Haircut', price: { amount: 1500, currency: 'EUR' } }], staff: null },
  };
}

function notifyStaff(booking) {
  if (booking.visit.staff === null) {
    throw new BookingMonitorError('booking has no staff member to notify', {
      tags: { component: 'booking-monitor', operation: 'notify_staff', backend: 'yclients' },
      extra: { booking },
    });
  }
}

run({ work: () => notifyStaff(nextBooking()) });
