//! The page of `cube get pod/my-pod`: what it is, how its containers are, what was asked for, what happened.

use cube_api::event::Event;
use cube_api::manifest::{ManifestMetadata, PodManifest, Resource};
use cube_api::meta::Labels;
use cube_api::pod::{ContainerState, ContainerStatus, Phase, Pod, PodSpec, Terminated};
use cube_api::status::{self, unready_because};
use jiff::Timestamp;

use super::style::{Style, Tone};
use super::{age, event, node, pod as rows, yaml};

/// The column where values begin.
const LABEL_WIDTH: usize = 13;

/// A page as it grows.
pub struct Page {
    style: Style,
    text: String,
}

impl Page {
    /// An empty page.
    pub fn new(style: Style) -> Self {
        Self { style, text: String::new() }
    }

    /// A label and its value; nothing where there is no value.
    pub fn line(&mut self, label: &str, value: &str) {
        self.toned(label, value, Tone::Plain);
    }

    /// A line whose value has a colour.
    pub fn toned(&mut self, label: &str, value: &str, tone: Tone) {
        self.indented(0, label, value, tone);
    }

    fn indented(&mut self, indent: usize, label: &str, value: &str, tone: Tone) {
        if value.is_empty() {
            return;
        }
        let label = format!("{}{label}:", " ".repeat(indent));
        let width = LABEL_WIDTH + indent;
        let mut lines = value.lines().map(printable);
        let first = lines.next().unwrap_or_default();
        self.text.push_str(&format!("{label:<width$}{}\n", self.style.paint(&first, tone)));
        for line in lines {
            self.text.push_str(&format!("{:width$}{}\n", "", self.style.paint(&line, tone)));
        }
    }

    /// A heading with a text under it, indented.
    pub fn section(&mut self, heading: &str, body: &str) {
        self.text.push_str(&format!("\n{heading}:\n"));
        for line in body.lines() {
            self.text.push_str(format!("  {line}").trim_end());
            self.text.push('\n');
        }
    }

    /// The events, oldest first.
    pub fn events(&mut self, events: &[Event], now: Timestamp) {
        if events.is_empty() {
            self.section("Events", "<none>");
        } else {
            let table = event::table(events, false, now).text(self.style);
            self.section("Events", &table);
        }
    }

    /// The whole page.
    pub fn text(self) -> String {
        self.text
    }
}

/// What a container wrote before it died must not reach the terminal as control characters.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Everything about one pod.
pub fn pod(pod: &Pod, events: &[Event], now: Timestamp, style: Style) -> String {
    let mut page = Page::new(style);
    head(&mut page, pod, now);
    page.text.push_str("\nContainers:\n");
    for container in &pod.spec.containers {
        let status = pod.status.containers.iter().find(|status| status.name == container.name);
        page.text.push_str(&format!("  {}:\n", container.name));
        page.indented(4, "Image", &container.image, Tone::Plain);
        match status {
            Some(status) => container_status(&mut page, status, now),
            None => page.indented(4, "State", "not reported by a node yet", Tone::Plain),
        }
    }
    page.section("Manifest", &yaml(&manifest(pod)));
    page.events(events, now);
    page.text()
}

fn head(page: &mut Page, pod: &Pod, now: Timestamp) {
    let metadata = &pod.metadata;
    let ago = |then: Timestamp| format!("{then:.0} ({} ago)", age::since(then, now));
    page.line("Name", metadata.name.as_str());
    page.toned("Status", &status::of_pod(pod), rows::tone(pod));
    page.line("Reason", pod.placement.waiting_for.as_deref().or(pod.status.message.as_deref()).unwrap_or_default());
    page.line("Node", pod.placement.node.as_ref().map_or("<none>", |node| node.as_str()));
    page.line("IP", &pod.status.pod_ip.map(|ip| ip.to_string()).unwrap_or_default());
    page.line("Labels", &node::labels(&metadata.labels));
    page.line("Created", &ago(metadata.created_at));
    page.line("Started", &pod.status.started_at.map(ago).unwrap_or_default());
    page.line("Ready", &ready(pod, ago));
    page.line("Finished", &pod.status.finished_at.map(ago).unwrap_or_default());
    page.line("Deleted", &metadata.deletion_requested_at.map(ago).unwrap_or_default());
    page.line("Uid", &metadata.uid.to_string());
    page.line("Generation", &metadata.generation.to_string());
}

/// Only of a pod that runs: before and after there is nothing to ask.
fn ready(pod: &Pod, ago: impl Fn(Timestamp) -> String) -> String {
    match (pod.status.phase, pod.is_ready(), pod.status.ready_since) {
        (Phase::Pending | Phase::Succeeded | Phase::Failed, _, _) => String::new(),
        (Phase::Running, true, Some(since)) => ago(since),
        // A node of a version before there were probes doesn't say since when.
        (Phase::Running, true, None) => "yes".to_owned(),
        (Phase::Running, false, _) => {
            let (ready, all) = status::ready_of(pod);
            format!("no, {ready} of {all} containers are")
        }
    }
}

fn container_status(page: &mut Page, status: &ContainerStatus, now: Timestamp) {
    let state = match &status.state {
        ContainerState::Waiting(waiting) => {
            let mut state = waiting.reason.as_str().to_owned();
            if let Some(until) = waiting.until.filter(|&until| until > now) {
                state.push_str(&format!(" (next try in {})", age::since(now, until)));
            }
            if let Some(message) = &waiting.message {
                state.push_str(&format!("\n{message}"));
            }
            state
        }
        ContainerState::Running(running) => {
            format!("Running (since {:.0}, {} ago)", running.started_at, age::since(running.started_at, now))
        }
        ContainerState::Terminated(end) => ended(end, now),
    };
    page.indented(4, "State", &state, Tone::Plain);
    if matches!(status.state, ContainerState::Running(_)) && !status.is_ready() {
        page.indented(4, "Not ready", &unready_because(status), Tone::Bad);
    }
    page.indented(4, "Last end", &status.last_termination.as_ref().map(|end| ended(end, now)).unwrap_or_default(), Tone::Plain);
    page.indented(4, "Restarts", &status.restart_count.to_string(), Tone::Plain);
    page.indented(4, "Container", status.container_id.as_deref().map(short_id).unwrap_or_default(), Tone::Plain);
}

/// `Error, exit code 3, 5s ago`, then its last lines.
fn ended(end: &Terminated, now: Timestamp) -> String {
    let mut text = format!("{}, exit code {}", end.reason.as_str(), end.exit_code);
    if let Some(finished_at) = end.finished_at {
        text.push_str(&format!(", {} ago", age::since(finished_at, now)));
    }
    if let Some(message) = end.message.as_deref().map(str::trim_end).filter(|message| !message.is_empty()) {
        text.push_str(&format!("\n{message}"));
    }
    text
}

/// As `docker ps` shows it.
fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn manifest(pod: &Pod) -> Resource {
    let metadata = ManifestMetadata {
        name: pod.metadata.name.clone(),
        labels: Labels::clone(&pod.metadata.labels),
        uid: None,
        revision: None,
        generation: None,
        created_at: None,
        deletion_requested_at: None,
        owner: None,
    };
    Resource::Pod(PodManifest { metadata, spec: PodSpec::clone(&pod.spec) })
}
