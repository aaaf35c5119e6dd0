"""A picture that came out of a student's kernel, drawn anew: what is kept is its pixels, and no byte of its file."""

import base64
import io
import warnings

from PIL import Image

MAX_BYTES = 4 * 2**20
MAX_PIXELS = 8_000_000
"""Of one picture: 4,000 x 2,000. A figure of matplotlib has 300,000."""
_MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGBA", "PA": "RGBA", "I": "L", "I;16": "L", "RGB": "RGB"}


class PictureError(Exception):
    """The data are no picture that can be shown; the message says why, as the end of a sentence."""


def redrawn(data: str, room: int = MAX_PIXELS) -> tuple[str, int]:
    """A PNG picture made anew from the pixels of another.

    Args:
        data: the other's bytes in base64, as a notebook holds them.
        room: how many pixels it may have.

    Returns:
        The new picture in base64, and the number of its pixels.

    Raises:
        PictureError: the data are no such picture, or it is too large.
    """
    if len(data) > MAX_BYTES * 4 // 3:
        raise PictureError(f"it has more than {MAX_BYTES // 2**20} MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's about large pictures: the limit here is smaller
            with Image.open(io.BytesIO(base64.b64decode(data)), formats=["PNG"]) as picture:
                width, height = picture.size  # stands in the header: nothing has been unpacked yet
                if width * height > min(room, MAX_PIXELS):
                    raise PictureError(f"it has {width} x {height} pixels, and there is no room for so many")
                plain = picture.convert(_MODES.get(picture.mode, "RGBA"))
        stream = io.BytesIO()
        # Of a new picture only the pixels are written: no text, no profile, no second frame.
        Image.frombytes(plain.mode, plain.size, plain.tobytes()).save(stream, "PNG")
    except PictureError:
        raise
    except Exception as error:  # Pillow raises whatever its parts raise
        raise PictureError("its data are damaged") from error
    return base64.b64encode(stream.getvalue()).decode("ascii"), width * height
