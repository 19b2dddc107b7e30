"""Files ↔ pictures: the door to this folder.

Behind it: formats.py (what there is, and how it is told apart), decoding.py, encoding.py, and what both use:
vips.py and pillow.py (the libraries), colour.py, metadata.py.
"""

from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.decoding import Header, decode, decode_animation, probe
from enlarger.engine.pictures.encoding import Encoding, encode, encode_animation
from enlarger.engine.pictures.formats import (
    FORMATS,
    Format,
    check_fits,
    check_holds,
    format_of,
    natural_format,
    sniff,
)

__all__ = [
    "FORMATS",
    "Animation",
    "Encoding",
    "Format",
    "Header",
    "check_fits",
    "check_holds",
    "decode",
    "decode_animation",
    "encode",
    "encode_animation",
    "format_of",
    "natural_format",
    "probe",
    "sniff",
]
