//! Several containers' lines in time order.
//!
//! Without follow the order is exact: a line is passed on when every other log has shown its next one. With follow a silent container must not hold
//! up the others: a line waits for them at most [`WINDOW`].

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use cube_api::stream::{Frame, Outcome};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::source::{Batch, Source};
use crate::follower::runtime::{LogLine, MAX_PIECE};

/// How long a line waits for older ones of silent containers, with follow.
const WINDOW: Duration = Duration::from_millis(50);

/// How long the rest of a long line is waited for, with follow.
const REST: Duration = Duration::from_secs(1);

/// A frame is passed on when it has so many bytes, with follow also when nothing more is ready.
const FRAME: usize = 32 * 1024;

/// How long lines wait for a full frame, without follow: Docker gives them one by one, and to send each on alone would cost the node, the leader
/// and the client more than Docker takes for it.
const HOLD: Duration = Duration::from_millis(20);

/// After so many bytes without a newline other containers go on.
const LONGEST_LINE: usize = 1024 * 1024;

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// `[name] ` before each.
    pub prefix: bool,
    /// Its time before each, RFC 3339.
    pub timestamps: bool,
}

/// The merge of several logs.
pub struct Merge {
    lanes: Vec<Lane>,
    reading: FuturesUnordered<BoxFuture<'static, Read>>,
    format: Format,
    follow: bool,
    out: BytesMut,
    /// Since when `out` has something.
    held: Instant,
    /// The line that has no newline yet.
    open: Option<Open>,
    problem: Option<String>,
    ended: bool,
}

struct Open {
    lane: usize,
    /// Bytes of it that were shown.
    shown: usize,
    /// Docker cut it: the rest is on its way.
    cut: bool,
}

struct Lane {
    prefix: String,
    /// What was read and not shown; the next batch is read when this one is shown.
    lines: VecDeque<LogLine>,
    source: Option<Source>,
    /// When the lines arrived.
    arrived: Instant,
    ended: bool,
}

struct Read {
    lane: usize,
    source: Source,
    batch: Option<Batch>,
}

enum Next {
    /// This lane's first line is next.
    Line(usize),
    /// Something has to arrive; at the latest then it is decided without it.
    Wait(Option<Instant>),
    /// Nothing comes any more.
    End,
}

impl Merge {
    /// Of these containers, in the order of the spec.
    pub fn new(sources: Vec<Source>, format: Format, follow: bool) -> Self {
        let lane = |source: &Source| Lane {
            prefix: format!("[{}] ", source.name),
            lines: VecDeque::new(),
            source: None,
            arrived: Instant::now(),
            ended: false,
        };
        let lanes = sources.iter().map(lane).collect();
        let reading = sources.into_iter().enumerate().map(|(index, source)| read(index, source)).collect();
        Self { lanes, reading, format, follow, out: BytesMut::new(), held: Instant::now(), open: None, problem: None, ended: false }
    }

    /// The next frame; none after the status.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        if self.ended {
            return None;
        }
        loop {
            match self.next_line() {
                Next::Line(lane) => {
                    self.show(lane);
                    if self.out.len() >= FRAME {
                        return Some(self.flush());
                    }
                }
                Next::Wait(until) => {
                    if let Some(Some(read)) = futures::FutureExt::now_or_never(self.reading.next()) {
                        self.take_in(read);
                    } else if self.out.is_empty() {
                        self.wait(until).await;
                    } else if self.follow || !self.wait(Some(self.held + HOLD)).await {
                        return Some(self.flush());
                    }
                }
                Next::End if !self.out.is_empty() => return Some(self.flush()),
                Next::End => {
                    self.ended = true;
                    let outcome = self.problem.take().map_or(Outcome::Success, Outcome::Failed);
                    return Some(Frame::Status(outcome));
                }
            }
        }
    }

    fn next_line(&self) -> Next {
        if self.problem.is_some() {
            return Next::End;
        }
        if let Some(Open { lane, shown, cut: true }) = self.open
            && shown < LONGEST_LINE
        {
            let Lane { lines, ended, arrived, .. } = &self.lanes[lane];
            if !lines.is_empty() {
                return Next::Line(lane);
            }
            let until = *arrived + REST;
            if !ended && (!self.follow || Instant::now() < until) {
                return Next::Wait(self.follow.then_some(until));
            }
        }
        let heads = self.lanes.iter().enumerate().filter_map(|(index, lane)| Some((lane.lines.front()?.at, index, lane.arrived)));
        let first = heads.min_by_key(|(at, index, _)| (*at, *index));
        let silent = self.lanes.iter().any(|lane| lane.lines.is_empty() && !lane.ended);
        match (first, silent) {
            (None, false) => Next::End,
            (None, true) => Next::Wait(None),
            (Some((_, lane, _)), false) => Next::Line(lane),
            (Some((_, lane, arrived)), true) if self.follow && arrived + WINDOW <= Instant::now() => Next::Line(lane),
            (Some((_, _, arrived)), true) => Next::Wait(self.follow.then_some(arrived + WINDOW)),
        }
    }

    /// Waits for what comes next; whether it came in time.
    async fn wait(&mut self, until: Option<Instant>) -> bool {
        let read = match until {
            Some(until) => tokio::time::timeout_at(until, self.reading.next()).await.unwrap_or_default(),
            None => self.reading.next().await,
        };
        let came = read.is_some();
        read.into_iter().for_each(|read| self.take_in(read));
        came
    }

    fn take_in(&mut self, read: Read) {
        let Read { lane: index, source, batch } = read;
        let lane = &mut self.lanes[index];
        lane.arrived = Instant::now();
        match batch {
            Some(Ok(lines)) => {
                lane.lines = lines.into();
                lane.source = Some(source);
                self.read_on(index);
            }
            Some(Err(problem)) => {
                lane.ended = true;
                self.problem = Some(problem);
            }
            None => lane.ended = true,
        }
    }

    /// Reads a lane's next batch once the one before is shown.
    fn read_on(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.lines.is_empty()
            && let Some(source) = lane.source.take()
        {
            self.reading.push(read(index, source));
        }
    }

    fn show(&mut self, index: usize) {
        let Some(line) = self.lanes[index].lines.pop_front() else { return };
        if self.out.is_empty() {
            self.held = Instant::now();
        }
        self.read_on(index);
        let goes_on = self.open.take();
        let mut shown = line.bytes.len();
        // With nobody to make room for, a container's bytes are shown as it wrote them.
        let alone = self.lanes.len() == 1;
        match goes_on {
            // One that Docker didn't cut is a log's last: what follows it is another attempt's first line.
            Some(open) if open.lane == index && open.cut && (alone || open.shown < LONGEST_LINE) => shown += open.shown,
            unfinished => {
                if unfinished.is_some() {
                    self.out.put_u8(b'\n');
                }
                self.begin_line(index, &line);
            }
        }
        self.out.put_slice(&line.bytes);
        if line.bytes.last() != Some(&b'\n') {
            self.open = Some(Open { lane: index, shown, cut: line.bytes.len() >= MAX_PIECE });
        }
    }

    fn begin_line(&mut self, index: usize, line: &LogLine) {
        if self.format.prefix {
            self.out.put_slice(self.lanes[index].prefix.as_bytes());
        }
        if self.format.timestamps
            && let Some(at) = line.at
        {
            write!(self.out, "{at} ").expect("memory takes it");
        }
    }

    fn flush(&mut self) -> Frame {
        Frame::Stdout(self.out.split().freeze())
    }
}

fn read(lane: usize, mut source: Source) -> BoxFuture<'static, Read> {
    Box::pin(async move {
        let batch = source.next().await;
        Read { lane, source, batch }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use cube_api::pod::RestartPolicy;
    use cube_api::routes::LogQuery;
    use jiff::Timestamp;

    use super::*;
    use crate::ambient::Ambient;
    use crate::follower::plan::View;
    use crate::follower::pods::Snapshot;
    use crate::follower::record::PodRecord;
    use crate::follower::runtime::fake::Fake;
    use crate::follower::status;
    use crate::follower::testing::{name, pod};
    use crate::latest;
    use crate::tasks::Tasks;

    /// Lines with their seconds.
    type Lines<'a> = &'a [(i64, &'a [u8])];

    /// A merge whose lanes get their lines by hand and then end.
    fn merge(format: Format, lanes: &[(&str, Lines<'_>)]) -> Merge {
        let mut merge = Merge::new(Vec::new(), format, false);
        for (name, lines) in lanes {
            let lines =
                lines.iter().map(|(at, bytes)| LogLine { at: Timestamp::from_second(*at).ok(), bytes: Bytes::copy_from_slice(bytes) });
            let lines = lines.collect();
            merge.lanes.push(Lane { prefix: format!("[{name}] "), lines, source: None, arrived: Instant::now(), ended: true });
        }
        merge
    }

    async fn text(mut merge: Merge) -> String {
        let mut out = Vec::new();
        while let Some(frame) = merge.next_frame().await {
            match frame {
                Frame::Stdout(bytes) => out.extend_from_slice(&bytes),
                other => assert_eq!(other, Frame::Status(Outcome::Success)),
            }
        }
        String::from_utf8(out).unwrap()
    }

    const PREFIX: Format = Format { prefix: true, timestamps: false };

    #[tokio::test]
    async fn lines_come_in_time_order_with_their_container() {
        let lanes: [(&str, Lines<'_>); 2] = [("a", &[(1, b"one\n"), (4, b"four\n")]), ("b", &[(2, b"two\n"), (3, b"three\n")])];
        assert_eq!(text(merge(PREFIX, &lanes)).await, "[a] one\n[b] two\n[b] three\n[a] four\n");
    }

    #[tokio::test]
    async fn a_long_line_is_joined_before_others_go_on() {
        let piece = vec![b'x'; MAX_PIECE];
        let lanes: [(&str, Lines<'_>); 2] = [("a", &[(1, &piece), (3, b"end\n")]), ("b", &[(2, b"two\n")])];
        let long = "x".repeat(MAX_PIECE);
        assert_eq!(text(merge(PREFIX, &lanes)).await, format!("[a] {long}end\n[b] two\n"));
    }

    #[tokio::test]
    async fn a_line_of_a_container_alone_is_never_broken() {
        let piece = vec![b'x'; MAX_PIECE];
        let long: Vec<(i64, &[u8])> = (0..80).map(|_| (1, piece.as_slice())).chain([(2, &b"end\n"[..])]).collect();
        let alone = Format { prefix: false, timestamps: false };
        assert_eq!(text(merge(alone, &[("a", &long)])).await, format!("{}end\n", "x".repeat(80 * MAX_PIECE)));
    }

    #[tokio::test]
    async fn a_line_that_never_ends_is_broken_after_a_mebibyte() {
        let piece = vec![b'x'; MAX_PIECE];
        let endless: Vec<(i64, &[u8])> = (0..80).map(|_| (1, piece.as_slice())).collect();
        let lanes: [(&str, Lines<'_>); 2] = [("a", &endless), ("b", &[(0, b"zero\n"), (2, b"two\n")])];
        let lines: Vec<_> = text(merge(PREFIX, &lanes)).await.lines().map(str::len).collect();
        let shown = |bytes: usize| "[a] ".len() + bytes;
        assert_eq!(lines, ["[b] zero".len(), shown(LONGEST_LINE), shown(80 * MAX_PIECE - LONGEST_LINE), "[b] two".len()]);
    }

    #[tokio::test]
    async fn a_log_s_last_line_without_newline_is_not_joined_with_the_next_attempt_s_first() {
        assert_eq!(text(merge(PREFIX, &[("a", &[(1, b"cut off"), (2, b"again\n")])])).await, "[a] cut off\n[a] again\n");
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_come_one_by_one_travel_together_unless_they_are_followed() {
        for (follow, expected) in [(false, &["one\ntwo\n"][..]), (true, &["one\n", "two\n"])] {
            let mut merge = merge(Format { prefix: false, timestamps: false }, &[("app", &[(1, b"one\n")])]);
            merge.follow = follow;
            merge.lanes[0].ended = false;
            let second = LogLine { at: None, bytes: Bytes::from_static(b"two\n") };
            let source = exhausted();
            merge.reading.push(Box::pin(async move {
                tokio::time::sleep(HOLD / 2).await;
                Read { lane: 0, source, batch: Some(Ok(vec![second])) }
            }));
            let mut frames = Vec::new();
            while let Some(Frame::Stdout(bytes)) = merge.next_frame().await {
                frames.push(String::from_utf8(bytes.to_vec()).unwrap());
            }
            assert_eq!(frames, expected);
        }
    }

    /// A log without another line.
    fn exhausted() -> Source {
        let pod = pod(1, RestartPolicy::Never);
        let record = PodRecord::new(&pod);
        let status = status::of_pod(&pod, &record, &View::default(), Timestamp::UNIX_EPOCH);
        let (_, snapshot) = latest::channel(Arc::new(Snapshot { pod, record, containers: Vec::new(), status }));
        let runtime = Arc::new(Fake::new(Ambient::system(), &Tasks::default()));
        Source::new(runtime, snapshot, name("app"), &LogQuery::default(), false)
    }

    #[tokio::test]
    async fn timestamps_are_rfc_3339() {
        let format = Format { prefix: false, timestamps: true };
        assert_eq!(text(merge(format, &[("a", &[(0, b"one\n")])])).await, "1970-01-01T00:00:00Z one\n");
    }
}
