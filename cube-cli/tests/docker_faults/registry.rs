//! A registry that refuses or hangs: it speaks as much of Docker's registry protocol as a pull needs to fail.
//!
//! It listens on 127.0.0.1, from where the engine takes images without TLS.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// The first byte of a TLS handshake: the engine tries that first, and goes on without when the connection ends.
const TLS: u8 = 0x16;

/// How a repository's manifests are answered, by the repository's name.
const ANSWERS: [(&str, &str, &str); 3] = [
    (
        "secret",
        "401 Unauthorized\r\nWww-Authenticate: Basic realm=\"cube\"",
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    ),
    ("missing", "404 Not Found", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    ("busy", "429 Too Many Requests", r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#),
];

/// The registry. Its threads end with the test's process.
pub struct Registry {
    address: String,
}

impl Registry {
    /// Serves on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        thread::spawn(move || {
            for client in listener.incoming() {
                // A client that hangs up breaks its connection: no error of the registry's.
                thread::spawn(move || client.and_then(|client| serve(&client)));
            }
        });
        Self { address }
    }

    /// An image of a repository: `secret`, `missing`, `busy`, or one that hangs.
    pub fn image(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.address)
    }
}

fn serve(mut client: &TcpStream) -> std::io::Result<()> {
    let mut first = [0];
    if client.peek(&mut first)? == 0 || first[0] == TLS {
        return Ok(());
    }
    let mut lines = BufReader::new(client).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let known = ANSWERS.iter().find(|(name, _, _)| path.starts_with(&format!("/v2/{name}/")));
    let (head, body) = match known {
        Some((_, head, body)) => (*head, *body),
        None if path == "/v2/" => ("200 OK", "{}"),
        None => loop {
            thread::sleep(Duration::from_secs(60));
        },
    };
    let body = if request.starts_with("HEAD") { "" } else { body };
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {head}\r\nDocker-Distribution-Api-Version: registry/2.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}
