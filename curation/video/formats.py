"""The kinds of file that are opened as videos: those that hold their frames themselves.

libav knows many more. Some name other files or addresses, which it then opens: playlists (HLS, DASH, concat), session
descriptions (SDP), folders of pictures (image2), sidecars beside the file (vobsub, mlv). Others make pictures of any text.
"""

from __future__ import annotations

FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "live_flv", "kux", "asf", "asf_o", "ogg"),
    *("mxf", "gxf", "lxf", "nut", "ivf", "obu", "av1", "h261", "h263", "h264", "hevc", "vvc", "evc", "m4v", "vc1"),
    *("vc1test", "cavsvideo", "avs2", "avs3", "dirac", "dnxhd", "mjpeg", "gif", "apng", "rm", "ivr", "dv", "wtv"),
    *("nsv", "nuv", "pva", "ty", "yuv4mpegpipe", "png_pipe", "jpeg_pipe"),
)
"""libav's demuxers, by the first of each one's names. PNG and JPEG open, so that their row says what they are."""


def refused_format(error: Exception) -> str | None:
    """Return the line for a file that libav did not open since its format is not one of ``FORMATS``."""
    log = getattr(error, "log", None)  # level, whose it is, what it says
    if log is None or not log[2].startswith("Format not on whitelist"):
        return None
    return (
        f"format={log[1]}: may lead to other files, or is no video, so it is not opened; allowed: {', '.join(FORMATS)}"
    )
