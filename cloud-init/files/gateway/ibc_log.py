"""What IBC's log says about the login: who is waited for, and whether somebody else took the session.

The lines are IBC's own (github.com/IbcAlpha/IBC: LoginManager, TwsListener, ibcstart.sh and the dialogs'
handlers). They tell of the login alone: that it completed is no proof that the API works now.
"""

import re

STARTING, LOGGED_IN, PAUSING = "starting", "logged_in", "pausing"
SECOND_FACTOR, SECOND_FACTOR_UNANSWERED = "second_factor", "second_factor_unanswered"
LOGIN_FAILED, NO_LOGIN_DIALOG = "login_failed", "no_login_dialog"

PHASES = (
    (STARTING, re.compile(r"IBC: (?:Starting|Re-starting) session|Re-login to session|IBC will restart")),
    (SECOND_FACTOR_UNANSWERED, re.compile(
        r"Re-login after second factor authentication timeout|IBC returned exit status 87"
        r"|Second Factor Authentication timed out"
    )),
    (SECOND_FACTOR, re.compile(
        r"Second Factor Authentication initiated|entitled: Second Factor Authentication; event=Opened"
    )),
    (LOGIN_FAILED, re.compile(
        r"IBC: Login failed|entitled: (?:Login failed|Unrecognized Username|Too many failed login)"
    )),
    (NO_LOGIN_DIALOG, re.compile(r"IBC returned exit status 88|failed to display login dialog")),
    (PAUSING, re.compile(r"CommandServer received command: (?:PAUSE|STOP|RESTART)")),
    (LOGGED_IN, re.compile(r"Login has completed")),
)  # fmt: skip
SESSION_TAKEN = re.compile(r"entitled: Existing session detected; event=Opened")
LINE = re.compile(r"(\d+\.\d+) \S+ [^:]+: (.*)")  # journalctl --output=short-unix


class IbcLog:
    """`phase` of the login (None while nothing was said) and since when; `session_taken_at`, or None.

    Times are seconds since the epoch.
    """

    def __init__(self):
        self.phase, self.since = None, 0.0
        self.session_taken_at = None

    def read(self, text):
        """Takes further lines of the journal in."""
        for line in text.splitlines():
            match = LINE.match(line)
            if match:
                self._hear(float(match.group(1)), match.group(2))

    def _hear(self, at, said):
        if SESSION_TAKEN.search(said):
            self.session_taken_at = at
        for phase, pattern in PHASES:
            if pattern.search(said):
                if phase != self.phase:
                    self.phase, self.since = phase, at
                if phase == LOGGED_IN:
                    self.since = at
                return
