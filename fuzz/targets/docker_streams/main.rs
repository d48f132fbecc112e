//! Any bytes as Docker's output and logs: never a panic, the same lines however the bytes are cut, and never more held than a frame.
#![no_main]

mod runtime;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

use self::runtime::demux::{Broken, Channel, Frames, LogLines, MAX_FRAME};
use self::runtime::{LogLine, MAX_PIECE};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    tty: bool,
    times: bool,
    piece: u8,
    /// Well-formed frames: what was put into them must come out.
    frames: Vec<(bool, &'a [u8])>,
    bytes: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let read = |piece: usize| lines(input.bytes, piece, input.tty, input.times);
    assert_eq!(read(input.bytes.len().max(1)), read(usize::from(input.piece) + 1), "the cuts made a difference");
    payloads_come_out(&input.frames, usize::from(input.piece) + 1);
});

fn lines(bytes: &[u8], piece: usize, tty: bool, times: bool) -> (Vec<LogLine>, Result<(), Broken>) {
    let (mut log, mut found) = (LogLines::new(tty, times), Vec::new());
    let mut take = |mut next: Box<dyn FnMut() -> Result<Option<LogLine>, Broken> + '_>| -> Result<(), Broken> {
        while let Some(line) = next()? {
            assert!(line.bytes.len() <= if tty { MAX_PIECE } else { MAX_FRAME }, "a line of {} bytes", line.bytes.len());
            found.push(line);
        }
        Ok(())
    };
    for piece in bytes.chunks(piece) {
        log.push(piece);
        if let Err(error) = take(Box::new(|| log.next())) {
            return (found, Err(error));
        }
    }
    let ended = take(Box::new(|| log.end()));
    (found, ended)
}

fn payloads_come_out(frames: &[(bool, &[u8])], piece: usize) {
    let mut stream = Vec::new();
    for (is_error, data) in frames {
        stream.extend([if *is_error { 2 } else { 1 }, 0, 0, 0]);
        stream.extend(u32::try_from(data.len()).expect("an input is short").to_be_bytes());
        stream.extend_from_slice(data);
    }
    let (mut taken, mut demux) = (Vec::new(), Frames::default());
    for piece in stream.chunks(piece) {
        demux.push(piece);
        while let Some((channel, data)) = demux.next().expect("well-formed") {
            taken.push((channel == Channel::Stderr, data));
        }
    }
    assert_eq!(demux.end(), Ok(()));
    assert_eq!(taken.len(), frames.len());
    assert!(taken.iter().zip(frames).all(|(taken, sent)| taken.0 == sent.0 && taken.1[..] == *sent.1));
}
