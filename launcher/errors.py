"""The one exception of the launcher."""


class LaunchError(Exception):
    """Something the user can act on; its text is one complete sentence and is shown as it is, without a traceback."""
