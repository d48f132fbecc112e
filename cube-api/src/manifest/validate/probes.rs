//! The rules of probes.

use super::super::path::Path;
use super::super::tree::excerpt;
use super::{Checks, MAX_GRACE_SECONDS};
use crate::pod::{Container, Handler, HttpGetProbe, HttpHeader, Probe, ProbeKind, ProbePort, Protocol, Scheme};

/// The longest of a probe's times: a day. Longer ones are typing slips.
const MAX_SECONDS: u32 = 86_400;

/// The most in a row: with the longest period that is three years. More are typing slips.
const MAX_THRESHOLD: u32 = 1_000;

/// The most headers of a request, and the longest path, which many servers take at most (8 KiB for the whole head).
const MAX_HEADERS: usize = 64;
const MAX_PATH_BYTES: usize = 4096;

/// The longest host name (DNS).
const MAX_HOST_BYTES: usize = 253;

impl Checks {
    /// The probes of a container.
    pub(super) fn probes(&mut self, path: &Path, container: &Container) {
        for kind in ProbeKind::ALL {
            if let Some(probe) = container.probe(kind) {
                self.probe(&path.key(kind.field()), container, kind, probe);
            }
        }
    }

    fn probe(&mut self, path: &Path, container: &Container, kind: ProbeKind, probe: &Probe) {
        self.times(path, kind, probe);
        let count = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some()].into_iter().filter(|there| *there).count();
        self.check(
            count == 1,
            || path.clone(),
            || format!("{count} ways to probe; exactly one of httpGet, tcpSocket and exec is expected"),
        );
        if let Some(get) = &probe.http_get {
            self.http_get(&path.key("httpGet"), container, get);
        }
        if let Some(socket) = &probe.tcp_socket {
            let path = path.key("tcpSocket");
            self.probed_port(&path.key("port"), container, &socket.port);
            self.host(&path.key("host"), socket.host.as_deref());
        }
        if let Some(Handler::Exec(exec)) = probe.handler() {
            let path = path.key("exec").key("command");
            let program = exec.command.first();
            self.check(program.is_some(), || path.clone(), || "the list is empty; the program to run is expected".to_owned());
            self.check(program.is_none_or(|word| !word.is_empty()), || path.index(0), || "the program to run is empty".to_owned());
            self.words(&path, &exec.command);
        }
    }

    fn times(&mut self, path: &Path, kind: ProbeKind, probe: &Probe) {
        let too_long = |seconds: u32| format!("{seconds} s; at most {MAX_SECONDS} (a day) are allowed");
        let delay = probe.initial_delay_seconds;
        self.check(delay <= MAX_SECONDS, || path.key("initialDelaySeconds"), || too_long(delay));
        for (field, seconds) in [("periodSeconds", probe.period_seconds), ("timeoutSeconds", probe.timeout_seconds)] {
            self.check(seconds > 0, || path.key(field), || "0 s; at least 1 is expected".to_owned());
            self.check(seconds <= MAX_SECONDS, || path.key(field), || too_long(seconds));
        }
        for (field, times) in [("successThreshold", probe.success_threshold), ("failureThreshold", probe.failure_threshold)] {
            self.check(times > 0, || path.key(field), || "0 times; at least 1 is expected".to_owned());
            self.check(times <= MAX_THRESHOLD, || path.key(field), || format!("{times} times; at most {MAX_THRESHOLD} are allowed"));
        }
        let ends_the_container = match kind {
            ProbeKind::Startup | ProbeKind::Liveness => true,
            ProbeKind::Readiness => false,
        };
        let times = probe.success_threshold;
        self.check(
            !ends_the_container || times <= 1,
            || path.key("successThreshold"),
            || format!("{times} times; a {} probe has succeeded when it succeeds once: 1 is expected", kind.as_str()),
        );
        if let Some(grace) = probe.termination_grace_period_seconds {
            let path = || path.key("terminationGracePeriodSeconds");
            self.check(ends_the_container, path, || "a readiness probe ends nothing; it belongs to liveness and startup probes".to_owned());
            // Kubernetes takes no 0 here either: it would be a SIGKILL without a word before.
            self.check(grace > 0, path, || "0 s; at least 1 is expected".to_owned());
            self.check(grace <= MAX_GRACE_SECONDS, path, || too_long(grace));
        }
    }

    fn http_get(&mut self, path: &Path, container: &Container, get: &HttpGetProbe) {
        let HttpGetProbe { path: target, port, scheme, host, http_headers } = get;
        let target_path = || path.key("path");
        self.check(target.starts_with('/'), target_path, || format!("`{}` does not begin with '/'", excerpt(target)));
        // What a request line can carry: the rest is written with % and two digits.
        let plain = target.bytes().all(|byte| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte));
        self.check(plain, target_path, || format!("`{}` has blanks or other characters that a URL has not", excerpt(target)));
        self.check(!target.contains('#'), target_path, || "what follows '#' is never sent to a server".to_owned());
        let length = target.len();
        self.check(length <= MAX_PATH_BYTES, target_path, || format!("{length} bytes, at most {MAX_PATH_BYTES} are allowed"));
        self.probed_port(&path.key("port"), container, port);
        self.host(&path.key("host"), host.as_deref());
        self.check(
            *scheme == Scheme::Http,
            || path.key("scheme"),
            || "cube speaks no TLS to pods: probe a plain port, use `tcpSocket`, or `exec` with a client that the image has".to_owned(),
        );
        let count = http_headers.len();
        let headers = path.key("httpHeaders");
        self.check(count <= MAX_HEADERS, || headers.clone(), || format!("{count} headers, at most {MAX_HEADERS} are allowed"));
        for (index, header) in http_headers.iter().enumerate().take(MAX_HEADERS) {
            self.header(&headers.index(index), header);
        }
    }

    fn header(&mut self, path: &Path, header: &HttpHeader) {
        let HttpHeader { name, value } = header;
        let name_path = || path.key("name");
        self.check(is_token(name), name_path, || format!("`{}` is no header's name: letters, digits and !#$%&'*+-.^_`|~", excerpt(name)));
        // They say where the message ends or what the connection does; a second one with another word is how requests are smuggled.
        let ours = ["content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"];
        let is_ours = ours.iter().any(|ours| name.eq_ignore_ascii_case(ours));
        self.check(!is_ours, name_path, || format!("`{}` is set by the probe itself", excerpt(name)));
        let right = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        self.check(right, || path.key("value"), || "a control character, which no header can carry".to_owned());
    }

    fn probed_port(&mut self, path: &Path, container: &Container, port: &ProbePort) {
        match port {
            ProbePort::Number(number) => {
                self.check(*number > 0, || path.clone(), || "0 is no port; a whole number from 1 to 65535 is expected".to_owned());
            }
            ProbePort::Name(name) => {
                let named = container.ports.iter().find(|port| port.name.as_ref() == Some(name));
                self.check(
                    named.is_some(),
                    || path.clone(),
                    || {
                        let names: Vec<&str> =
                            container.ports.iter().filter_map(|port| port.name.as_ref()).map(|name| name.as_str()).collect();
                        let there = if names.is_empty() {
                            "none of its ports has a name".to_owned()
                        } else {
                            format!("there are {}", names.join(", "))
                        };
                        format!("no port of this container is named `{name}`; {there}")
                    },
                );
                let speaks_tcp = named.is_none_or(|port| port.protocol == Protocol::Tcp);
                self.check(speaks_tcp, || path.clone(), || format!("`{name}` is a UDP port; only TCP can be probed"));
            }
        }
    }

    fn host(&mut self, path: &Path, host: Option<&str>) {
        let Some(host) = host else { return };
        let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let right = host.parse::<std::net::IpAddr>().is_ok() || (is_name && host.len() <= MAX_HOST_BYTES);
        self.check(
            right,
            || path.clone(),
            || format!("`{}` is neither an address nor a host's name (without port and scheme)", excerpt(host)),
        );
    }
}

/// A token of HTTP (RFC 9110, 5.6.2).
fn is_token(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::manifest::{Resource, parse};
    use crate::pod::{Container, Probe, ProbePort};

    /// A manifest of one container with these lines and a named port.
    fn manifest(lines: &str) -> String {
        let ports = "[{name: web, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]";
        format!(
            "type: pod\nmetadata: {{name: web}}\nspec:\n  containers:\n    - name: app\n      image: nginx\n      ports: {ports}\n      {lines}\n"
        )
    }

    fn container(lines: &str) -> Container {
        let mut resources = parse(&manifest(lines)).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let Resource::Pod(pod) = resources.remove(0) else { unreachable!("it is a pod") };
        pod.spec.containers[0].clone()
    }

    /// `field: what is wrong`, below the container.
    fn problems(lines: &str) -> Vec<String> {
        let problems = parse(&manifest(lines)).expect_err("it is wrong");
        problems.iter().map(|problem| problem.to_string().split_once("containers[0].").expect("a path below it").1.to_owned()).collect()
    }

    #[test]
    fn a_probe_has_the_defaults_of_kubernetes() {
        let container = container("livenessProbe: {httpGet: {port: web}}");
        let probe = container.liveness_probe.as_deref().expect("a probe");
        let Probe { initial_delay_seconds, period_seconds, timeout_seconds, success_threshold, failure_threshold, .. } = probe;
        assert_eq!([*initial_delay_seconds, *period_seconds, *timeout_seconds, *success_threshold, *failure_threshold], [0, 10, 1, 1, 3]);
        let get = probe.http_get.as_ref().expect("a request");
        assert_eq!((get.path.as_str(), get.port.number(&container)), ("/", Some(8080)));
    }

    #[test]
    fn a_port_is_a_number_or_a_name_also_when_it_is_quoted() {
        let port = |text: &str| {
            container(&format!("readinessProbe: {{tcpSocket: {{port: {text}}}}}")).readiness_probe.expect("it").tcp_socket.expect("it").port
        };
        assert_eq!(port("80"), ProbePort::Number(80));
        assert_eq!(port("'80'"), ProbePort::Number(80));
        assert_eq!(port("web"), ProbePort::Name("web".parse().expect("a name")));
        for wrong in ["70000", "-1", "WEB", "''", "[80]", "1.5"] {
            let problems = problems(&format!("readinessProbe: {{tcpSocket: {{port: {wrong}}}}}"));
            assert!(problems[0].starts_with("readinessProbe.tcpSocket.port"), "{wrong}: {problems:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_path_and_reason() {
        for (lines, expected) in [
            ("livenessProbe: {}", "livenessProbe: 0 ways to probe; exactly one of"),
            ("livenessProbe: {tcpSocket: {port: 1}, exec: {command: [a]}}", "livenessProbe: 2 ways to probe"),
            (
                "livenessProbe: {tcpSocket: {port: http}}",
                "livenessProbe.tcpSocket.port: no port of this container is named `http`; there are web, dns",
            ),
            ("livenessProbe: {tcpSocket: {port: dns}}", "livenessProbe.tcpSocket.port: `dns` is a UDP port"),
            ("livenessProbe: {tcpSocket: {port: 0}}", "livenessProbe.tcpSocket.port: 0 is no port"),
            ("livenessProbe: {tcpSocket: {port: 1, host: 'http://a'}}", "livenessProbe.tcpSocket.host: `http://a` is neither"),
            ("startupProbe: {exec: {command: []}}", "startupProbe.exec.command: the list is empty"),
            ("startupProbe: {exec: {command: ['']}}", "startupProbe.exec.command[0]: the program to run is empty"),
            ("startupProbe: {exec: {command: [a]}, periodSeconds: 0}", "startupProbe.periodSeconds: 0 s; at least 1"),
            ("startupProbe: {exec: {command: [a]}, timeoutSeconds: 86401}", "startupProbe.timeoutSeconds: 86401 s; at most 86400"),
            ("startupProbe: {exec: {command: [a]}, periodSeconds: -1}", "startupProbe.periodSeconds: found "),
            ("startupProbe: {exec: {command: [a]}, failureThreshold: 0}", "startupProbe.failureThreshold: 0 times"),
            ("startupProbe: {exec: {command: [a]}, successThreshold: 2}", "startupProbe.successThreshold: 2 times; a startup probe has"),
            ("livenessProbe: {exec: {command: [a]}, successThreshold: 2}", "livenessProbe.successThreshold: 2 times; a liveness probe has"),
            ("livenessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 0}", "livenessProbe.terminationGracePeriodSeconds: 0 s"),
            (
                "readinessProbe: {exec: {command: [a]}, terminationGracePeriodSeconds: 5}",
                "readinessProbe.terminationGracePeriodSeconds: a readiness",
            ),
            ("readinessProbe: {httpGet: {port: 80, path: health}}", "readinessProbe.httpGet.path: `health` does not begin with '/'"),
            ("readinessProbe: {httpGet: {port: 80, path: '/a b'}}", "readinessProbe.httpGet.path: `/a b` has blanks"),
            ("readinessProbe: {httpGet: {port: 80, path: '/{x}'}}", "readinessProbe.httpGet.path: `/{x}` has blanks"),
            ("readinessProbe: {httpGet: {port: 80, scheme: HTTPS}}", "readinessProbe.httpGet.scheme: cube speaks no TLS"),
            ("readinessProbe: {httpGet: {port: 80, scheme: ftp}}", "readinessProbe.httpGet.scheme: `ftp` is not allowed"),
            (
                "readinessProbe: {httpGet: {port: 80, httpHeaders: [{name: 'a b', value: c}]}}",
                "readinessProbe.httpGet.httpHeaders[0].name: `a b` is no header's name",
            ),
            (
                "readinessProbe: {httpGet: {port: 80, httpHeaders: [{name: Content-Length, value: 3}]}}",
                "readinessProbe.httpGet.httpHeaders[0].name: `Content-Length` is set by",
            ),
            (
                "readinessProbe: {httpGet: {port: 80, httpHeaders: [{name: a, value: \"b\\r\\nc: d\"}]}}",
                "readinessProbe.httpGet.httpHeaders[0].value: a control",
            ),
            ("readinessProbe: {httpGet: {path: /}}", "readinessProbe.httpGet: the field `port` is missing"),
            ("readinessProbe: {tcpSocket: {port: 1}, grpc: {port: 1}}", "readinessProbe.grpc: unknown field"),
        ] {
            let problems = problems(lines);
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{lines}\n{problems:#?}");
        }
    }

    proptest! {
        #[test]
        fn a_probe_is_the_same_after_writing_and_reading(numbers in prop::array::uniform5(1u32..1000), name in any::<bool>()) {
            let port = if name { "web".to_owned() } else { numbers[0].to_string() };
            let [delay, period, timeout, successes, failures] = numbers;
            let lines = format!(
                "readinessProbe: {{httpGet: {{port: {port}, path: /x?y=1}}, initialDelaySeconds: {delay}, periodSeconds: {period}, \
                 timeoutSeconds: {timeout}, successThreshold: {successes}, failureThreshold: {failures}}}"
            );
            let container = container(&lines);
            let json = serde_json::to_string(&container).expect("plain data");
            prop_assert_eq!(serde_json::from_str::<Container>(&json).expect("its own JSON"), container);
        }
    }
}
