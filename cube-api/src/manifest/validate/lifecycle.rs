//! The rules of a pod's life: parts, hooks, the deadline, last words.

use super::{Checks, MAX_GRACE_SECONDS};
use crate::manifest::path::Path;
use crate::manifest::tree::excerpt;
use crate::pod::{Container, ExecProbe, Hook, PodSpec, ProbeKind, RunHandler, SleepAction};

/// File systems that are gone or mean nothing once the process has ended. `/dev` is one of the container's own: measured on Docker 20.10, a file that
/// was written there can't be read any more.
const GONE_AT_THE_END: [&str; 3] = ["/dev", "/proc", "/sys"];

/// The longest path of Linux (`PATH_MAX`, with the closing NUL).
const MAX_PATH_BYTES: usize = 4095;

pub(super) fn pod(checks: &mut Checks, path: &Path, spec: &PodSpec) {
    let deadline = || path.key("activeDeadlineSeconds");
    checks.check(spec.active_deadline_seconds != Some(0), deadline, || "0 s; a pod may be active for at least 1".to_owned());
    for (index, container) in spec.init_containers.iter().enumerate() {
        let path = path.key("initContainers").index(index);
        let runs_on = container.is_sidecar() || container.lifecycle.is_empty();
        checks.check(runs_on, || path.key("lifecycle"), || only_for_sidecars("no hooks"));
        for kind in ProbeKind::ALL {
            let runs_on = container.is_sidecar() || container.probe(kind).is_none();
            checks.check(runs_on, || path.key(kind.field()), || only_for_sidecars("no probes"));
        }
        container_rules(checks, &path, container);
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.key("containers").index(index);
        checks.check(
            container.restart_policy.is_none(),
            || path.key("restartPolicy"),
            || "only an init container has a `restartPolicy` of its own (it is a sidecar then); these have the pod's".to_owned(),
        );
        container_rules(checks, &path, container);
    }
}

fn only_for_sidecars(what: &str) -> String {
    format!("an init container that runs to its end has {what}; with `restartPolicy: Always` it is a sidecar, which may")
}

fn container_rules(checks: &mut Checks, path: &Path, container: &Container) {
    if let Some(file) = &container.termination_message_path {
        let path = || path.key("terminationMessagePath");
        let right = file.starts_with('/') && file.len() <= MAX_PATH_BYTES && !file.contains('\0');
        checks.check(right, path, || format!("`{}` is not an absolute path", excerpt(file)));
        let folder = GONE_AT_THE_END.iter().find(|folder| is_below(folder, file));
        checks.check(folder.is_none(), path, || {
            let folder = folder.copied().unwrap_or_default();
            format!("what a container writes below `{folder}` is gone when it ends; name a file elsewhere, such as /tmp/termination-log")
        });
    }
    let lifecycle = path.key("lifecycle");
    let hooks = [("postStart", &container.lifecycle.post_start), ("preStop", &container.lifecycle.pre_stop)];
    for (name, hook) in hooks {
        if let Some(hook) = hook {
            hook_rules(checks, &lifecycle.key(name), container, hook);
        }
    }
}

/// Whether a path leads below a folder, with `.`, `..` and doubled slashes taken for what they mean.
fn is_below(folder: &str, file: &str) -> bool {
    let mut steps = Vec::new();
    for step in file.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    steps.first().is_some_and(|first| folder.strip_prefix('/') == Some(first))
}

fn hook_rules(checks: &mut Checks, path: &Path, container: &Container, hook: &Hook) {
    let handlers: Vec<_> = hook.handlers().collect();
    checks.check(
        handlers.len() == 1,
        || path.clone(),
        || match handlers.len() {
            0 => "nothing to run; one of exec, httpGet and sleep is expected".to_owned(),
            several => format!("{several} things to run; one of exec, httpGet and sleep is expected"),
        },
    );
    for handler in handlers {
        match handler {
            RunHandler::Exec(action) => exec(checks, &path.key("exec"), action),
            RunHandler::HttpGet(action) => checks.http_get(&path.key("httpGet"), container, action),
            RunHandler::Sleep(SleepAction { seconds }) => {
                let right = (1..=MAX_GRACE_SECONDS).contains(seconds);
                checks.check(
                    right,
                    || path.key("sleep").key("seconds"),
                    || format!("{seconds} s; 1 to {MAX_GRACE_SECONDS} (a day) are allowed"),
                );
            }
        }
    }
}

fn exec(checks: &mut Checks, path: &Path, ExecProbe { command }: &ExecProbe) {
    let path = path.key("command");
    let program = command.first();
    checks.check(program.is_some(), || path.clone(), || "the list is empty; the program to run is expected".to_owned());
    checks.check(program.is_none_or(|word| !word.is_empty()), || path.index(0), || "the program to run is empty".to_owned());
    checks.words(&path, command);
}

#[cfg(test)]
mod tests {
    use crate::manifest::parse;

    /// `path: what is wrong`, below the spec.
    fn problems(spec: &str) -> Vec<String> {
        let text = format!("type: pod\nmetadata: {{name: web}}\nspec: {{{spec}}}\n");
        let problems = parse(&text).err().unwrap_or_default();
        problems.iter().map(|problem| problem.to_string().split_once("spec.").expect("a path below it").1.to_owned()).collect()
    }

    fn of_app(lines: &str) -> Vec<String> {
        problems(&format!("containers: [{{name: app, image: nginx, {lines}}}]"))
    }

    fn of_init(lines: &str) -> Vec<String> {
        problems(&format!("initContainers: [{{name: setup, image: nginx, {lines}}}], containers: [{{name: app, image: nginx}}]"))
    }

    #[test]
    fn what_works_is_accepted() {
        assert_eq!(of_init("restartPolicy: Always, lifecycle: {postStart: {exec: {command: [a]}}}"), [""; 0]);
        assert_eq!(of_init("env: [{name: A, value: b}], terminationMessagePath: /tmp/end"), [""; 0]);
        let hooks = "lifecycle: {postStart: {httpGet: {port: 80}}, preStop: {sleep: {seconds: 5}}}";
        assert_eq!(of_app(&format!("{hooks}, terminationMessagePath: /device/end, terminationMessagePolicy: File")), [""; 0]);
        assert_eq!(problems("activeDeadlineSeconds: 1, containers: [{name: app, image: nginx}]"), [""; 0]);
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_path_and_reason() {
        let app = [
            ("restartPolicy: Always", "containers[0].restartPolicy: only an init container"),
            ("lifecycle: {preStop: {}}", "containers[0].lifecycle.preStop: nothing to run"),
            ("lifecycle: {preStop: {sleep: {seconds: 1}, exec: {command: [a]}}}", "containers[0].lifecycle.preStop: 2 things to run"),
            ("lifecycle: {preStop: {sleep: {seconds: 0}}}", "containers[0].lifecycle.preStop.sleep.seconds: 0 s"),
            ("lifecycle: {postStart: {exec: {command: []}}}", "containers[0].lifecycle.postStart.exec.command: the list is empty"),
            ("lifecycle: {postStart: {exec: {command: ['']}}}", "containers[0].lifecycle.postStart.exec.command[0]: the program"),
            ("lifecycle: {postStart: {httpGet: {port: web}}}", "containers[0].lifecycle.postStart.httpGet.port: no port"),
            ("terminationMessagePath: end", "containers[0].terminationMessagePath: `end` is not an absolute path"),
            ("terminationMessagePath: /dev/termination-log", "containers[0].terminationMessagePath: what a container writes below `/dev`"),
            ("terminationMessagePath: /tmp/..//./proc/1", "containers[0].terminationMessagePath: what a container writes below `/proc`"),
            ("terminationMessagePolicy: Files", "containers[0].terminationMessagePolicy: `Files` is not allowed; did you mean `File`?"),
        ];
        let init = [
            ("restartPolicy: Never", "initContainers[0].restartPolicy: `Never` is not allowed"),
            (
                "lifecycle: {preStop: {sleep: {seconds: 1}}}",
                "initContainers[0].lifecycle: an init container that runs to its end has no hooks",
            ),
            (
                "readinessProbe: {tcpSocket: {port: 1}}",
                "initContainers[0].readinessProbe: an init container that runs to its end has no probes",
            ),
            ("env: nonsense", "initContainers[0].env: found a text"),
        ];
        let found = app.map(|(lines, expected)| (of_app(lines), expected)).into_iter();
        for (problems, expected) in found.chain(init.map(|(lines, expected)| (of_init(lines), expected))) {
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{expected}\n{problems:#?}");
        }
        // Kubernetes knows the field and fails the hook when it is run.
        let socket = of_app("lifecycle: {preStop: {tcpSocket: {port: 1}}}");
        assert!(socket[1].starts_with("containers[0].lifecycle.preStop.tcpSocket: unknown field"), "{socket:?}");
        let same = problems("activeDeadlineSeconds: 0, initContainers: [{name: a, image: b}], containers: [{name: a, image: b}]");
        assert_eq!(same.len(), 2, "{same:?}");
        assert!(same[0].starts_with("activeDeadlineSeconds: 0 s") && same[1].contains("`a` is the name of initContainers[0]"), "{same:?}");
    }
}
