"""The one kind of failure that belongs to a caller: everything else is a defect of the engine."""


class RequestError(Exception):
    """A request the engine refuses. `str(error)` is the text for the caller; the contract gives it its wording."""
