"""Times and names, in the words of the screen, the pictures and the page."""


def clock(seconds: float) -> str:
    """Return 3725.4 as 1:02:05 and 5.4 as 0:05."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def shortened(name: str, width: int) -> str:
    """Return the name in `width` characters at most, its middle left out."""
    if len(name) <= width:
        return name
    end = 2 * width // 3
    return name[: width - end - 1] + "…" + name[-end:]
