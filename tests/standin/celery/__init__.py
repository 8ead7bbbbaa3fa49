"""The few names of celery that operators' commands for the 5.2 line's worker use; the stand-in works behind them."""
