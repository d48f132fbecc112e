//! Takes Docker's stream formats apart: the frames of output without a terminal, and the lines of a log.
//!
//! Pure and bounded: whatever the bytes, at most one chunk plus one frame (or one line of 16 KiB) is held, and nothing panics. Whether there
//! are frames is told by the caller, who knows whether the process has a terminal; guessing it from the bytes lets output that begins
//! with a byte of 0 to 2 pass for a frame of up to 4 GiB.

use bytes::{Buf, Bytes, BytesMut};
use jiff::Timestamp;

use super::{LogLine, MAX_PIECE};

/// The most that a frame may hold, in bytes. Docker's own are 32 KiB at most (its copy buffer); more means that the stream is broken.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Channel, three zeroes, length in big-endian.
const HEADER: usize = 8;

/// The longest `2026-01-02T03:04:05.123456789+00:00 ` that is looked for, in bytes.
const MAX_STAMP: usize = 40;

/// Why bytes are not what Docker should send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A frame of a channel that doesn't exist.
    #[error("docker's stream is broken: channel {0} is not known")]
    Channel(u8),
    /// Over [`MAX_FRAME`].
    #[error("docker's stream is broken: a frame of {0} bytes")]
    TooLong(usize),
    /// The stream ended inside a frame.
    #[error("docker's stream was cut")]
    Cut,
    /// A log entry that doesn't begin with its time.
    #[error("docker's log is broken: an entry without its time")]
    NoTime,
    /// Docker's own trouble, told on a channel of its own.
    #[error("docker can't go on with the stream: {0}")]
    Engine(String),
}

/// Where a frame's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Standard output (Docker's channel 0, standard input's echo, counts as it).
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes frames apart.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes the next bytes. Call [`Frames::next`] until it has no more before the next one, else they pile up.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<(Channel, Bytes)>, Broken> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [channel, _, _, _, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if channel > 3 {
            return Err(Broken::Channel(channel));
        }
        if length > MAX_FRAME {
            return Err(Broken::TooLong(length));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let data = self.buffer.split_to(length).freeze();
        match channel {
            2 => Ok(Some((Channel::Stderr, data))),
            3 => Err(Broken::Engine(String::from_utf8_lossy(&data).trim().to_owned())),
            _ => Ok(Some((Channel::Stdout, data))),
        }
    }

    /// The stream ended: nothing may be left.
    pub fn end(&self) -> Result<(), Broken> {
        if self.buffer.is_empty() { Ok(()) } else { Err(Broken::Cut) }
    }
}

/// Takes a log apart.
#[derive(Debug)]
pub struct LogLines {
    source: LogSource,
    /// Whether every entry begins with its time.
    times: bool,
}

#[derive(Debug)]
enum LogSource {
    /// Of a container without a terminal: one entry is one frame.
    Framed(Frames),
    /// Of one with a terminal: entries follow each other, without frames.
    Raw(RawLines),
}

impl LogLines {
    /// For a container with or without a terminal, whose log was asked for with or without times.
    pub fn new(tty: bool, times: bool) -> Self {
        let source = if tty { LogSource::Raw(RawLines::default()) } else { LogSource::Framed(Frames::default()) };
        Self { source, times }
    }

    /// Takes the next bytes. Call [`LogLines::next`] until it has no more before the next one, else they pile up.
    pub fn push(&mut self, chunk: &[u8]) {
        match &mut self.source {
            LogSource::Framed(frames) => frames.push(chunk),
            LogSource::Raw(raw) => raw.buffer.extend_from_slice(chunk),
        }
    }

    /// The next whole line or piece.
    pub fn next(&mut self) -> Result<Option<LogLine>, Broken> {
        match &mut self.source {
            LogSource::Framed(frames) => match frames.next()? {
                Some((_, mut bytes)) => {
                    let (at, length) = stamp(&bytes, self.times)?;
                    bytes.advance(length);
                    Ok(Some(LogLine { at, bytes }))
                }
                None => Ok(None),
            },
            LogSource::Raw(raw) => raw.next(self.times, false),
        }
    }

    /// The stream ended: what is left, if it is a line without its newline. Call it until it has no more.
    pub fn end(&mut self) -> Result<Option<LogLine>, Broken> {
        match &mut self.source {
            LogSource::Framed(frames) => frames.end().map(|()| None),
            LogSource::Raw(raw) => raw.next(self.times, true),
        }
    }
}

/// The log of a container with a terminal. A line waits for its newline, for the 16 KiB at which Docker cuts it, or for the end of the stream.
#[derive(Debug, Default)]
struct RawLines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no newline, so that a long line isn't searched again with every chunk.
    searched: usize,
}

impl RawLines {
    fn next(&mut self, times: bool, ended: bool) -> Result<Option<LogLine>, Broken> {
        if self.buffer.is_empty() || (!ended && self.buffer.len() < MAX_STAMP && !self.buffer.contains(&b'\n')) {
            return Ok(None);
        }
        let (at, skip) = stamp(&self.buffer, times)?;
        let window = self.buffer.len().min(skip + MAX_PIECE);
        let from = self.searched.clamp(skip, window);
        let length = match self.buffer[from..window].iter().position(|&byte| byte == b'\n') {
            Some(position) => from + position + 1,
            None if window == skip + MAX_PIECE || ended => window,
            None => {
                self.searched = window;
                return Ok(None);
            }
        };
        self.searched = 0;
        let mut bytes = self.buffer.split_to(length).freeze();
        bytes.advance(skip);
        Ok(Some(LogLine { at, bytes }))
    }
}

/// The time at the start of a log entry, if there is one, and where the entry's own bytes begin.
fn stamp(entry: &[u8], times: bool) -> Result<(Option<Timestamp>, usize), Broken> {
    if !times {
        return Ok((None, 0));
    }
    let blank = entry.iter().take(MAX_STAMP).position(|&byte| byte == b' ').ok_or(Broken::NoTime)?;
    let text = std::str::from_utf8(&entry[..blank]).map_err(|_| Broken::NoTime)?;
    Ok((Some(text.parse().map_err(|_| Broken::NoTime)?), blank + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: &str = "2026-11-21T00:38:16.357670752Z";

    fn frame(channel: u8, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).expect("a test's frame is short");
        [&[channel, 0, 0, 0], &length.to_be_bytes()[..], data].concat()
    }

    fn entry(line: &[u8]) -> Vec<u8> {
        [AT.as_bytes(), b" ", line].concat()
    }

    /// Feeds `pieces` and gives every line, or what broke, and the most that was held.
    fn lines<'a>(tty: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<LogLine>, Option<Broken>, usize) {
        decoded(LogLines::new(tty, true), pieces)
    }

    fn decoded<'a>(mut decoder: LogLines, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<LogLine>, Option<Broken>, usize) {
        let (mut out, mut held) = (Vec::new(), 0);
        for piece in pieces {
            decoder.push(piece);
            held = held.max(match &decoder.source {
                LogSource::Framed(frames) => frames.buffer.len(),
                LogSource::Raw(raw) => raw.buffer.len(),
            });
            loop {
                match decoder.next() {
                    Ok(Some(line)) => out.push(line),
                    Ok(None) => break,
                    Err(broken) => return (out, Some(broken), held),
                }
            }
        }
        loop {
            match decoder.end() {
                Ok(Some(line)) => out.push(line),
                Ok(None) => return (out, None, held),
                Err(broken) => return (out, Some(broken), held),
            }
        }
    }

    fn texts(lines: &[LogLine]) -> Vec<&[u8]> {
        lines.iter().map(|line| &line.bytes[..]).collect()
    }

    #[test]
    fn frames_give_their_lines_with_nanoseconds() {
        let input = [frame(1, &entry(b"one\n")), frame(2, &entry(b"two\n"))].concat();
        let (lines, broken, _) = lines(false, [&input[..]]);
        assert_eq!((texts(&lines), broken), (vec![&b"one\n"[..], b"two\n"], None));
        assert_eq!(lines[0].at, AT.parse().ok());
    }

    #[test]
    fn without_times_every_byte_is_the_line_s() {
        let long = vec![b'x'; MAX_PIECE];
        let expected = [b"2026 is no time\n", &long[..], b"$ "];
        for tty in [false, true] {
            let input = expected.map(|line| if tty { line.to_vec() } else { frame(1, line) }).concat();
            for size in [1, 7, 100_000] {
                let (lines, broken, _) = decoded(LogLines::new(tty, false), input.chunks(size));
                assert_eq!((texts(&lines), broken), (expected.to_vec(), None));
                assert!(lines.iter().all(|line| line.at.is_none()));
            }
        }
    }

    #[test]
    fn terminal_output_that_looks_like_a_frame_header_is_text() {
        let hostile = [&[1, 0, 0, 0, 255, 255, 255, 255][..], b"\n"].concat();
        let input = [entry(&hostile), entry(b"after\n")].concat();
        let (lines, broken, _) = lines(true, [&input[..]]);
        assert_eq!((texts(&lines), broken), (vec![&hostile[..], b"after\n"], None));
    }

    #[test]
    fn a_terminal_line_without_newline_comes_at_the_end_or_when_it_is_full() {
        let long = vec![b'x'; MAX_PIECE];
        let input = [entry(&long), entry(b"$ ")].concat();
        let (lines, broken, _) = lines(true, input.chunks(1000));
        assert_eq!((texts(&lines), broken), (vec![&long[..], b"$ "], None));
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_waited_for() {
        let (_, broken, _) = lines(false, [&[1, 0, 0, 0, 255, 255, 255, 255][..]]);
        assert_eq!(broken, Some(Broken::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn a_cut_frame_is_an_error_and_docker_s_own_words_are_told() {
        assert_eq!(lines(false, [&frame(1, &entry(b"one\n"))[..20]]).1, Some(Broken::Cut));
        let told = frame(3, b"error reading the file\n");
        assert_eq!(lines(false, [&told[..]]).1, Some(Broken::Engine("error reading the file".to_owned())));
    }

    proptest! {
        #[test]
        fn arbitrary_splits_change_nothing(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20), size in 1_usize..300, tty in any::<bool>(),
        ) {
            let input: Vec<u8> = texts.iter().flat_map(|text| {
                let line: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'\n').chain([b'\n']).collect();
                if tty { entry(&line) } else { frame(1, &entry(&line)) }
            }).collect();
            let (whole, broken, _) = lines(tty, [&input[..]]);
            prop_assert_eq!(&broken, &None);
            prop_assert_eq!(whole.len(), texts.len());
            let (split, broken, _) = lines(tty, input.chunks(size));
            prop_assert_eq!((whole, None), (split, broken));
        }

        #[test]
        fn hostile_bytes_never_panic_and_never_pile_up(input in prop::collection::vec(any::<u8>(), 0..100_000), size in 1_usize..5_000, tty in any::<bool>()) {
            let (_, _, held) = lines(tty, input.chunks(size));
            let limit = size + if tty { MAX_STAMP + MAX_PIECE } else { HEADER + MAX_FRAME };
            prop_assert!(held <= limit);
        }

        #[test]
        fn a_terminal_line_of_any_length_stays_bounded(length in 0_usize..100_000, size in 1_usize..5_000) {
            let input = [entry(&vec![b'x'; length.min(MAX_PIECE)]), vec![b'y'; length.saturating_sub(MAX_PIECE)]].concat();
            let (_, _, held) = lines(true, input.chunks(size));
            prop_assert!(held <= size + MAX_STAMP + MAX_PIECE);
        }
    }
}
