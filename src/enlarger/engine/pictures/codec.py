"""Files ↔ pictures: the door to this folder.

Behind it: formats.py (what there is, and how it is told apart), decoding.py, encoding.py, pyramid.py, and what they
use: vips.py and pillow.py (the libraries), colour.py, metadata.py.
"""

from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.decoding import decode, decode_animation, open_stream, probe
from enlarger.engine.pictures.encoding import Encoding, encode, encode_animation
from enlarger.engine.pictures.formats import (
    FORMATS,
    Format,
    Header,
    check_fits,
    check_holds,
    format_of,
    natural_format,
    sniff,
)
from enlarger.engine.pictures.pyramid import write_pyramid

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
    "open_stream",
    "probe",
    "sniff",
    "write_pyramid",
]
