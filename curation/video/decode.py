"""A decoder makes one pass over one stream: packets into frames with rising times, counted, and judged at the end.

Opens nothing: ``dailies.curation.video`` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any

from dailies.curation.errors import Broken, TooFewFrames, Truncated
from dailies.curation.geometry import Size
from dailies.curation.timing import end_of, ticks
from dailies.curation.video import ebml, nal
from dailies.curation.video.audio import SoundDecoder, SoundListener, choose_sound
from dailies.curation.video.bytes_io import InputFile, one_line
from dailies.curation.video.clock import ROUNDING, PacketTimes
from dailies.curation.video.pixels import UNSPECIFIED, Upright

OVERLAP = Fraction(1, 4)  # seconds by which time may go back without having begun anew
LATE = Fraction(1, 5)  # seconds that a header may declare too many: some writers count the decoder's delay
APART = Fraction(1, 10)  # seconds by which the container ends after all other streams if it ends with this one
BROKEN = 0.2  # share of packets that may fail to decode, and of frames whose time may fail to rise
MISSING = 0.05  # share of what the header declares that may be missing (or two frames, if that is more)
SKIPPABLE = frozenset({"h264", "hevc", "mpeg2video", "mpeg1video"})  # codecs of one frame a packet, B-frames and all
STRICT = frozenset({"mjpeg"})  # codecs whose decoder makes a picture of anything unless told to refuse what is damaged
SPARSE = 6  # frames per second: where skipping leaves fewer, too much would be missed
COLOURS = ("colorspace", "color_primaries", "color_trc")
TIMED = frozenset({"matroska", "flv", "mxf", "mp4"})  # demuxers whose duration is what a header says, not an estimate
DEMUX_ERRORS = 8  # errors in a row after which a demuxer is not asked again: it would go on for ever


class FrameDecoder:
    """Decodes ``stream`` of ``container``, which reads ``file``.

    Counters, right at any time: ``packets`` and, of those, ``packets_broken`` that did not decode and ``packets_marked`` that
    the demuxer calls damaged; ``frames`` given out and, of those, ``frames_corrupt`` that the decoder marked as damaged;
    ``frames_dropped`` whose pts did not rise; ``frames_guessed`` whose time is made up; ``demux_errors``. ``times`` is what the
    packets tell of time.

    ``skip_nonref``: skip frames that no other frame refers to, most B-frames, which saves half of the work and more;
    their times are still known from their packets. ``shown`` are the times of all frames, decoded or not, and ``trusted`` says
    whether that is all there is to know of those left out: if not, the source is to be read again without.

    ``listener``: hears the sound that goes with the pictures, each piece when its packet is read: none is kept.

    Figures of the header, ``None`` where it does not say: ``start``, ``duration`` (ticks), ``declared`` (frames),
    ``rate`` (frames per second), ``aspect`` (width of a pixel over its height); ``aspect_at`` knows it of each frame.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        file: InputFile,
        *,
        threads: int,
        skip_nonref: bool = False,
        listener: SoundListener | None = None,
    ) -> None:
        sound = None if listener is None else choose_sound(container, stream)
        self._sound = None if sound is None else SoundDecoder(sound)
        self._listener = listener
        self.packets = self.packets_broken = self.demux_errors = 0
        self.frames = self.frames_corrupt = self.frames_dropped = self.frames_guessed = self.packets_marked = 0
        self.faults_at: list[tuple[str, int | None]] = []  # which counter, and the pts of the packet or frame
        self.seeking = False  # packets before the first keyframe are of no use
        self.times = PacketTimes(stream, container.streams.audio, container.format.name)
        self.guessed = False  # a frame without any timestamp was given one, or that of a packet before or after it
        self.entry: tuple[bool, int | None] | None = None  # the first packet: a keyframe that is shown, its pts
        self._container, self._stream, self._file = container, stream, file
        self._codec = stream.codec_context
        self._codec.thread_count = threads
        if self._codec.name in STRICT:
            self._codec.options = {"err_detect": "explode"}
        # AVI says when a packet is due, not when its frame is shown: libav can tell the latter but for these.
        self.slots = container.format.name == "avi" and self._codec.name in ("h264", "hevc")
        self.skips_nonref = skip_nonref and self._codec.name in SKIPPABLE and not self.slots
        if self.skips_nonref:
            self._codec.skip_frame = "NONREF"
        # What the container says of colours: some decoders forget it where the frames themselves say nothing.
        named = {name: getattr(self._codec, name) for name in COLOURS}
        self._colours = {name: value for name, value in named.items() if value != UNSPECIFIED}
        self._packets_shown: list[int] = []
        self._has_times = False  # some frame came with a time
        self._timed = True  # every packet says when it is shown
        self._trimmed = False  # the first packets are only there for others to refer to: an edit list leaves them out
        self._fell_from: int | None = None  # the time that did not rise, of the first of the frames just dropped
        self._restart: tuple[int, int] | None = None  # from where to where the time jumped back
        self._own_header = self._header = bytes(self._codec.extradata or b"")
        self._turning: set[int] = set()  # pts of the keyframes whose packets state a turn
        # FLV has its codec headers among the packets: who goes into its middle has the wrong one.
        self.seeks = container.format.name != "flv"
        if threads != 1:
            self._codec.thread_type = "AUTO"
        self._end = 0  # first tick after the last frame
        self._reach = self._others_reach = Fraction(
            0
        )  # seconds at which the packets so far end, of any stream, of others
        self._last_error = ""  # the demuxer's, as a message in brackets
        self._read_header()
        if listener is not None:
            listener.begin(self.time_base)

    def _read_header(self) -> None:
        """Take the header's figures, and let the demuxer skip what is not needed."""
        from av.stream import Discard

        stream, container = self._stream, self._container
        self.time_base: Fraction = stream.time_base
        self.aspect: Fraction | None = stream.sample_aspect_ratio
        self.described: Mapping[Size, Fraction] | None = None  # aspects by several descriptions: see ``boxes``
        self._coded_aspect = self._codec.sample_aspect_ratio  # as the pictures themselves begin
        self._aspects: list[tuple[int | None, Fraction | None]] = []  # pts of a packet from which on it is another
        self.rate: Fraction | None = stream.average_rate or stream.guessed_rate
        self.start: int | None = stream.start_time
        self.declared: int | None = stream.frames or None
        self.duration: int | None = stream.duration
        seconds = None if container.duration is None else Fraction(container.duration, 1_000_000)
        begins = Fraction(container.start_time or 0, 1_000_000)
        # Some writers count it from the clock's zero, others from the first packet.
        since = begins if seconds is not None and 0 < begins < seconds and self.duration is None else Fraction(0)
        self._length = None if seconds is None else seconds - since
        if self.duration is None and self._length is not None:
            self.duration = round(self._length / self.time_base)
        # Where a header counts no frames, that a file ends early shows only in how far its packets of any stream reach.
        timed = any(name in TIMED for name in container.format.name.split(","))
        self._expected = begins + self._length if self._length and self.declared is None and timed else None
        if self._expected is None:
            demuxed = {stream.index, *(sound.index for sound in self._beside)}
            for other in container.streams:
                if other.index not in demuxed:
                    other.discard = Discard.all

    def __iter__(self) -> Generator[tuple[int, Any], None, None]:
        """Yield (pts, libav's frame) in presentation order, pts strictly rising: a frame whose pts does not rise is dropped.

        Where the pts is missing the dts of the packet that brought the frame out stands in for it, or else the time one
        frame after the last. To be closed before the container is.
        """
        gap = round(1 / (self.rate * self.time_base)) if self.rate else 1
        last: int | None = None
        for packet in itertools.chain(self.coded(), (None,)):
            for frame in self._frames_of(packet):
                untimed = frame.pts is None or self.slots
                pts = frame.dts if untimed else frame.pts
                self._has_times |= pts is not None
                self.guessed |= self.slots and self._codec.has_b_frames
                if untimed and (pts is None or (last is not None and pts <= last)):
                    pts = (self.start or 0) if last is None else last + gap
                    self.guessed = True
                    self.frames_guessed += packet is not None  # of those that come out at the end no one knows more
                if last is not None:
                    if pts <= last:
                        self._drop(pts, last)
                        continue
                    gap = pts - last
                self._fell_from = None
                last, self._end = pts, pts + gap
                self.frames += 1
                if frame.is_corrupt:
                    self.frames_corrupt += 1
                    self.faults_at.append(("frames_corrupt", pts))
                for name, value in self._colours.items():
                    if getattr(frame, name) == UNSPECIFIED:
                        setattr(frame, name, value)
                yield pts, frame

    @property
    def _beside(self) -> list[Any]:
        """Streams of sound that are demuxed beside the pictures."""
        heard = [] if self._sound is None else [self._container.streams[self._sound.index]]
        return [*heard, *(stream for stream in self.times.sound.demuxed if stream not in heard)]

    def _hear(self, packet: Any) -> None:
        """Hand on the sound of a packet, if it is of the stream that is heard; ``None`` is the end."""
        if self._sound is None or self._listener is None:
            return
        if packet is None or (packet.stream_index == self._sound.index and packet.size):
            for block in self._sound.decode(packet):
                self._listener.hear(block)
            while self._sound.lost:
                self._listener.lose(*self._sound.lost.pop(0))

    @property
    def hears_since(self) -> Fraction | None:
        """Seconds from which on sound was decoded; ``None`` where there is none, or none was yet."""
        return None if self._sound is None else self._sound.since

    @property
    def hears_until(self) -> Fraction | None:
        """Seconds up to which sound was decoded; ``None`` where there is none, or none was yet."""
        return None if self._sound is None else self._sound.until

    def aspect_at(self, pts: int, size: Size) -> Fraction | None:
        """Return the width of a pixel over its height, of a frame that just came out; ``None`` where nothing says.

        ``size``: (width, height) of the frame. Frames do not carry their aspect, and come out later than the packet whose
        header changes it. A container that differs from its pictures from the start overrules them; one with several
        sample descriptions does only where one of them speaks of this size: its size on screen fits but one of them.
        """
        coded: Fraction | None = self._coded_aspect
        for since, aspect in self._aspects:
            coded = aspect if since is None or since <= pts else coded
        if self.described is not None:
            return self.described.get(size, coded)
        return self.aspect if self.overrules or coded == self._coded_aspect else coded

    @property
    def overrules(self) -> bool:
        """Return whether the container states other pixels than the pictures themselves begin with."""
        return bool(self.aspect) and self.aspect != (self._coded_aspect or 1)

    def states_turn(self, frame: Any) -> bool:
        """Tell whether the stream states a turn at this keyframe; in a raw stream, which has no times, libav's word goes."""
        if frame.pts is None:
            return bool(Upright.matrices(frame)) and self._codec.name in nal.SEI
        return frame.pts in self._turning

    def _drop(self, pts: int, last: int) -> None:
        """Drop a frame that is not later than the ``last``. Where it is much earlier and more follow, time has begun anew.

        Parts of a recording that overlap by a few frames show these twice, and the first stay.
        """
        if self._fell_from is None:
            self._fell_from = pts
        elif (
            self._restart is None and pts > self._fell_from and last - self._fell_from > ticks(OVERLAP, self.time_base)
        ):
            self._restart = last, self._fell_from
        self.frames_dropped += 1

    def coded(self) -> Iterator[Any]:
        """Yield the stream's packets that hold data. A demuxer's errors are counted, and it is asked to go on."""
        import av

        streams = self._container.streams if self._expected else [self._stream, *self._beside]
        errors_in_a_row = 0
        while errors_in_a_row < DEMUX_ERRORS:
            try:
                for packet in self._container.demux(*streams):
                    errors_in_a_row = 0
                    ours = packet.stream_index == self._stream.index
                    if packet.pts is not None and self._expected:
                        reach = (packet.pts + (packet.duration or 0)) * packet.time_base
                        self._reach = max(self._reach, reach)
                        self._others_reach = self._others_reach if ours else max(self._others_reach, reach)
                    if not ours:
                        self.times.sound.note(packet)
                        self._hear(packet)
                    # An empty packet would tell the decoder that the stream is over.
                    if packet.size and ours:
                        if self.seeking and not packet.is_keyframe:
                            continue
                        self.seeking = False
                        self.entry = self.entry or (packet.is_keyframe and not packet.is_discard, packet.pts)
                        if packet.has_sidedata("new_extradata"):
                            self._header = bytes(packet.get_sidedata("new_extradata"))
                        self._note(packet)
                        yield packet
                break
            except IndexError:
                break  # PyAV stumbles, at the end, over streams that came up only after opening
            except av.FFmpegError as error:
                errors_in_a_row += 1
                self.demux_errors += 1
                self._last_error = f" ({one_line(error)})"
        self._hear(None)
        self._file.check()

    def _note(self, packet: Any) -> None:
        """Remember when a packet that may be skipped is shown."""
        self.packets_marked += packet.is_corrupt
        self.times.note(packet)
        self._trimmed |= packet.is_discard and not self._packets_shown
        if packet.is_keyframe and packet.pts is not None and self._codec.name in nal.SEI:
            with suppress(ValueError):  # a header that is cut short
                length = nal.Packing.of(self._codec.name, self._header).length
                if nal.states_turn(self._codec.name, bytes(packet), length):
                    self._turning.add(packet.pts)
        if self.skips_nonref and not packet.is_discard:
            self._timed &= packet.pts is not None
            self._packets_shown.append(packet.pts or 0)

    @property
    def reheaded(self) -> bool:
        """Return whether another codec header is in force than the one that the stream came with."""
        return self._header != self._own_header

    def shown(self, decoded: Sequence[int]) -> list[int]:
        """Return the times of all frames from the first of the ``decoded`` on, in order, up to the packets read."""
        if not self.skips_nonref or not decoded:
            return list(decoded)
        return sorted(pts for pts in self._packets_shown if pts >= decoded[0])

    def trusted(self, decoded: Sequence[int]) -> bool:
        """Tell whether nothing is lost by the frames skipped.

        That is so where the stream decodes without a fault, its packets tell the time of each frame, and enough was decoded.
        """
        if not self.skips_nonref:
            return True
        known = set(self._packets_shown)
        if self._trimmed and decoded and min(known, default=decoded[0]) < decoded[0]:
            return False  # the first frame was skipped
        seconds = (decoded[-1] - decoded[0]) * self.time_base if decoded else 0
        enough = len(decoded) >= min(len(known), SPARSE * seconds)
        return enough and not self.faulty and len(known) == len(self._packets_shown) and known.issuperset(decoded)

    @property
    def faulty(self) -> bool:
        """Return whether anything was wrong so far. Faults within skipped frames do not show."""
        faults = self.packets_broken + self.packets_marked + self.frames_corrupt + self.frames_dropped
        return bool(faults or self.demux_errors or self.guessed or not self._timed)

    @property
    def end(self) -> int:
        """First tick after the last frame so far."""
        return self._end

    def end_after(self, pts: Sequence[int]) -> int:
        """Return the first tick after the last frame of ``pts``, sorted and at least one, once all packets are read.

        The container's word goes first: what it says of the last frame, or its own end where no other stream reaches so far.
        """
        stated = self.times.stated_after(pts)
        # Only Matroska's: flv's counts the decoder's delay, or up to the last frame.
        if stated is None and self._is_matroska and self._expected and self._expected - self._others_reach > APART:
            stated = round(self._expected / self.time_base) - pts[-1]
            # Some writers count up to the last frame here, too.
            stated = stated if stated * self.time_base > ROUNDING else None
        return end_of(pts, stated)

    @property
    def _is_matroska(self) -> bool:
        return "matroska" in self._container.format.name

    def _frames_of(self, packet: Any) -> list[Any]:
        """Decode one packet, ``None`` being the end. A packet that does not decode is counted."""
        import av

        self.packets += packet is not None
        before = self._codec.sample_aspect_ratio
        try:
            frames = list(self._codec.decode(packet))
            if packet is not None and self._codec.sample_aspect_ratio != before:
                self._aspects.append((packet.pts, self._codec.sample_aspect_ratio))
            return frames
        except av.FFmpegError:
            if packet is not None:
                self.packets_broken += 1
                self.faults_at.append(("packets_broken", packet.pts))
            return []

    def check_packets(self) -> None:
        """Raise ``Broken``, after any frame, as ``check`` does for what was read so far."""
        if self.packets_broken > BROKEN * self.packets:
            raise Broken(f"{self.packets_broken} of {self.packets} packets do not decode{self._last_error}")
        total = self.frames + self.frames_dropped
        if self._has_times and self.frames_guessed > BROKEN * total:
            raise Broken(f"{self.frames_guessed} of {total} frames have no time")
        if self._restart:
            last, first = (float(pts * self.time_base) for pts in self._restart)
            raise Broken(f"time jumps back from {last:.2f} s to {first:.2f} s: a time stands for more than one frame")
        if self.frames_dropped > BROKEN * total:
            raise Broken(f"{self.frames_dropped} of {total} frames are not later than the frame before")

    def check_end(self, prefix: str = "") -> None:
        """Raise ``Truncated``, after the last frame and wherever reading began, as ``check`` does."""
        if self.declared and self.duration:
            left = (self.start or 0) + self.duration - self._end
            if left > max(2, MISSING * self.declared) * self.duration / self.declared:
                raise Truncated(f"{prefix}ends {float(left * self.time_base):.2f} s early{self._last_error}")
        elif (
            self._expected
            and self._length
            and self._expected - self._reach > max(MISSING * self._length, 2 / (self.rate or 2), LATE)
            and not self._is_whole()
        ):
            figures = f"ends at {float(self._reach):.2f} s of the {float(self._expected):.2f} s"
            raise Truncated(f"{figures} that the header declares{self._last_error}")

    def _is_whole(self) -> bool:
        """Tell whether the file has all of its bytes: then the last frame is held until the stated end."""
        return self._is_matroska and ebml.is_whole(self._file)

    def check(self) -> None:
        """Raise, after the last frame, if what came cannot stand for the source.

        ``Broken``: over a fifth of the packets do not decode, or of the frames go back in time, or have none while others
        have; or time jumps back and goes on from there. ``Truncated``: it ends before its own header says.
        ``TooFewFrames``: fewer than two.
        """
        self.check_packets()
        total = len(self._packets_shown) if self.skips_nonref else self.frames + self.frames_dropped
        if self.declared is None or self.declared - total > max(2, MISSING * self.declared):
            self.check_end(f"{total} of the {self.declared} frames that the header declares: " if self.declared else "")
        if max(self.frames, len(self._packets_shown)) < 2:
            raise TooFewFrames(f"{self.frames} frame{'' if self.frames == 1 else 's'} from {self.packets} packets")
