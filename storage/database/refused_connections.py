"""Connections that a PostgreSQL server or its client library will refuse again, with the remedy.

While connecting, the driver has no SQLSTATE, only a message.
"""

from __future__ import annotations

import re

import psycopg

_ADVICE = (
    (
        re.compile(r"password authentication failed"),
        "does not accept user {user}: the user or the password is wrong; correct database.url (or its source: "
        "database.url_file, OUTRIDER_DATABASE__URL)",
    ),
    (
        re.compile(r"no password supplied"),
        "requires a password for user {user}; write postgresql://{user}:PASSWORD@HOST/NAME, or put the "
        "URL into a file and set database.url_file to it",
    ),
    (
        re.compile(r'database "(?P<name>.*)" does not exist'),
        "has no database {name!r}; create it (CREATE DATABASE), or correct database.url",
    ),
    (
        re.compile(r'role "(?P<name>.*)" does not exist'),
        "has no user {name!r}; create it (CREATE ROLE ... LOGIN), or correct database.url",
    ),
    (
        re.compile(r"no pg_hba\.conf entry(?!.*SSL encryption).*no encryption"),
        "does not accept user {user} from this machine without TLS: add sslmode=verify-full and sslrootcert to "
        "database.url if the server has TLS, otherwise an entry to its pg_hba.conf",
    ),
    (
        re.compile(r"no pg_hba\.conf entry"),
        "does not accept user {user} from this machine: its pg_hba.conf has no matching entry; add one, or correct "
        "database.url",
    ),
    (
        re.compile(r'permission denied for database "(?P<name>.*)"|role ".*" is not permitted to log in'),
        "does not accept user {user}: grant it LOGIN, and CONNECT on the database, or correct database.url",
    ),
    (
        re.compile(r"certificate verify failed"),
        "has a certificate that is not trusted (certificate verify failed): it has expired, or its authority is not in "
        "the file of sslrootcert; correct sslrootcert in database.url, or renew the server's certificate",
    ),
    (
        re.compile(r'server certificate for "(?P<name>.*?)".* does not match host name "(?P<host>.*?)"'),
        "has a certificate for {name!r}, not for host {host!r}; use a name of the certificate as host in database.url, "
        "or sslmode=verify-ca",
    ),
    (
        re.compile(r'root certificate file "(?P<name>.*?)" does not exist'),
        "cannot be verified: the file {name!r} does not exist; set sslrootcert in database.url to the certificate of "
        "the server's authority, or to system",
    ),
    (
        re.compile(r'could not read root certificate file "(?P<name>.*?)"'),
        "cannot be verified: the file {name!r} of sslrootcert in database.url cannot be read as PEM certificates",
    ),
    (
        re.compile(r"server does not support SSL, but SSL was required"),
        "has no TLS, which sslmode in database.url requires; enable TLS on the server, or remove sslmode",
    ),
    (
        re.compile(r"requires a valid client certificate|certificate authentication failed"),
        "requires a client certificate of user {user}; set sslcert and sslkey in database.url to existing files whose "
        "certificate has this user as its common name",
    ),
    (
        re.compile(r"SSL error: (?P<name>\S+ alert (?:unknown ca|bad certificate|(?:unsupported )?certificate.*))"),
        "does not accept the client certificate ({name}); set sslcert and sslkey in database.url to a valid "
        "certificate of an authority that the server trusts",
    ),
    (
        re.compile(r'private key file "(?P<name>.*?)" has group or world access'),
        "is not contacted, because other users may read the key file {name!r}; run chmod 600 on it",
    ),
    (
        re.compile(r'certificate present, but not private key file "(?P<name>.*?)"'),
        "is not contacted, because the key file {name!r} does not exist; correct sslkey in database.url",
    ),
    (
        re.compile(r'could not (?:open|read|load) (?:certificate|private key) file "(?P<name>.*?)": (?P<why>.*)'),
        "is not contacted: the file {name!r} cannot be used ({why}); correct sslcert and sslkey in database.url",
    ),
    (
        re.compile(r'(?P<name>invalid (?:URI query parameter|connection option|sslmode value|"\w+" value):? ".*?")'),
        "is not contacted: {name}; correct the options of database.url",
    ),
)


def explain_refused_connection(error: psycopg.Error, reason: str) -> str | None:
    """Return why every such connection will be refused; None if a later one may succeed.

    Args:
        error: An error without an SQLSTATE.
        reason: Its message, in one line.
    """
    user = getattr(error.pgconn, "user", b"") or b""
    for pattern, advice in _ADVICE:
        match = pattern.search(reason)
        if match is not None:
            return advice.format(user=user.decode(errors="replace") or "?", **match.groupdict())
    return None
