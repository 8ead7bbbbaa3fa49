"""E-mail over SMTP, encrypted unless the server is this host or has no password to lose."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any

from ...errors import CoreError
from ...text import one_line
from ..fields import is_local, line
from ..messages import Message
from ..transport import NotSentError, Transport

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_LONGEST_SUBJECT = 150


def _check(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    security = line(entry, "security", where, "starttls")
    if security not in _PORTS:
        raise CoreError(f"{where}: security must be starttls, tls or none")
    port = entry.get("port", _PORTS[security])
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise CoreError(f"{where}: port must be a number from 1 to 65535")
    host = line(entry, "host", where)
    username, password = line(entry, "username", where, ""), line(entry, "password", where, "")
    if bool(username) != bool(password):
        raise CoreError(f"{where}: username and password belong together")
    if password and security == "none" and not is_local(host):
        raise CoreError(f"{where}: security is none, so the password would cross the network unencrypted")
    receivers = entry["to"]
    if not isinstance(receivers, list) or not receivers:
        raise CoreError(f"{where}: to must be a list of addresses")
    for address in (entry["from"], *receivers):
        if not isinstance(address, str) or re.fullmatch(r"[!-?A-~]+@[A-Za-z0-9.-]+", address) is None:
            raise CoreError(f"{where}: from and to must be mail addresses as in ops@example.org")
    return {
        "host": host,
        "port": port,
        "security": security,
        "username": username,
        "password": password,
        "from": entry["from"],
        "to": tuple(receivers),
    }


def _mail(options: Mapping[str, Any], message: Message, text: str, domain: str) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = one_line(message.title)[:_LONGEST_SUBJECT]
    mail["From"] = options["from"]
    mail["To"] = ", ".join(options["to"])
    mail["Date"] = format_datetime(message.moment)
    mail["Message-ID"] = make_msgid(domain=domain)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text + "\n")
    return mail


def _send(options: Mapping[str, Any], message: Message, text: str, host: str, timeout: float) -> None:
    name = re.sub(r"[^A-Za-z0-9.-]", "", host) or "localhost"
    mail = _mail(options, message, text, name)
    context = ssl.create_default_context()
    try:
        server: smtplib.SMTP
        if options["security"] == "tls":
            server = smtplib.SMTP_SSL(
                options["host"], options["port"], local_hostname=name, timeout=timeout, context=context
            )
        else:
            server = smtplib.SMTP(options["host"], options["port"], local_hostname=name, timeout=timeout)
        with server:
            if options["security"] == "starttls":
                server.starttls(context=context)
            if options["username"]:
                server.login(options["username"], options["password"])
            refused = server.send_message(mail, options["from"], list(options["to"]))
    except smtplib.SMTPAuthenticationError as error:
        raise NotSentError(f"refused the user name and password ({error.smtp_code})") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise NotSentError(f"refused every receiver ({codes[0]})", again=codes[0] < 500) from None
    except smtplib.SMTPNotSupportedError:
        raise NotSentError(
            f"offers no {'STARTTLS' if options['security'] == 'starttls' else 'login'}"
        ) from None
    except smtplib.SMTPResponseException as error:
        raise NotSentError(f"answered {error.smtp_code}", again=400 <= error.smtp_code < 500) from None
    except (OSError, smtplib.SMTPException) as error:
        raise _unreached(error) from None
    if refused:
        raise NotSentError(f"refused {len(refused)} of {len(options['to'])} receivers")


def _unreached(error: Exception) -> NotSentError:
    if isinstance(error, TimeoutError):
        return NotSentError("did not answer in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotSentError(f"has a certificate that cannot be trusted: {error.verify_message}")
    if isinstance(error, socket.gaierror):
        return NotSentError("has a name that cannot be resolved", again=True)
    text = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
    return NotSentError(f"cannot be reached: {text or type(error).__name__}", again=True)


TRANSPORT = Transport(
    frozenset({"host", "from", "to"}),
    frozenset({"port", "security", "username", "password"}),
    20_000,
    str,
    _check,
    _send,
)
