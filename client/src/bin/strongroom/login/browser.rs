//! Waits on the loopback for the browser that comes back from a provider (RFC 8252, 7.3), and starts one.
//!
//! Anything on this machine may connect, and any page may make a browser do so: what does not bring the state of this log-in is turned away and
//! ends nothing. No answer repeats what it was asked, and none may be framed, run or kept.

use crate::failure::Failure;
use std::{
    collections::BTreeMap,
    env,
    net::Ipv4Addr,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};

/// A request's line and headers: a code of 4 KiB, state, cookies of other services on this machine.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Browsers open connections that they may never use.
const CONNECTIONS_MAX: usize = 16;
/// A head must be there within this.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// What an answer waits for its reader.
const TAB_PATIENCE: Duration = Duration::from_secs(2);
/// `error` of RFC 6749, 4.1.2.1, as far as it is shown.
const WORD_BYTES_MAX: usize = 64;

/// The place where a browser is waited for.
pub struct Waiting(TcpListener);

/// What a browser brought, with the state of this log-in.
pub struct Brought {
    /// The code, or the provider's word for why there is none.
    pub outcome: Result<String, String>,
    /// Who says so (RFC 9207).
    pub iss: Option<String>,
    /// The page that waits for an answer.
    pub tab: Tab,
}

/// A page that waits for an answer.
pub struct Tab(TcpStream);

impl Waiting {
    /// At `port` of 127.0.0.1; 0: any.
    pub async fn at(port: u16) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        listener.map(Self).map_err(|error| {
            Failure::other(
                format!("cannot wait for a browser at 127.0.0.1:{port}: {error}"),
                "give another --port that the provider knows, or use --device",
            )
        })
    }

    pub fn port(&self) -> Result<u16, Failure> {
        let address = self.0.local_addr();
        address
            .map(|address| address.port())
            .map_err(|error| Failure::other("the listener has no address", error.to_string()))
    }

    /// Where the browser will come to, which the trust may have fixed; and the path.
    pub async fn at_redirect(self, redirect: &str) -> Result<(Self, String), Failure> {
        let strange = || Failure::other("the daemon sends the browser to another machine", "ask who runs it");
        let rest = redirect.strip_prefix("http://127.0.0.1:").ok_or_else(strange)?;
        let (port, path) = rest.split_at(rest.find('/').ok_or_else(strange)?);
        let port: u16 = port.parse().map_err(|_| strange())?;
        let path = path.to_owned();
        if port == self.port()? {
            return Ok((self, path));
        }
        drop(self);
        Ok((Self::at(port).await?, path))
    }

    /// Waits for the browser that brings `state`.
    pub async fn brought(self, path: &str, state: &str) -> Result<Brought, Failure> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (tell, mut told) = mpsc::channel(1);
        let want: Arc<(String, String)> = Arc::new((path.to_owned(), state.to_owned()));
        loop {
            let stream = tokio::select! {
                Some(brought) = told.recv() => return Ok(brought),
                accepted = self.0.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let (tell, want) = (tell.clone(), Arc::clone(&want));
            tokio::spawn(async move {
                let _place = place;
                if let Some(brought) = receive(stream, &want.0, &want.1).await {
                    // The first is taken; a second finds nobody, and that is right.
                    let _ = tell.try_send(brought);
                }
            });
        }
    }
}

async fn receive(mut stream: TcpStream, path: &str, state: &str) -> Option<Brought> {
    let head = timeout(HEAD_PATIENCE, read_head(&mut stream)).await.ok()??;
    match parse(&head, path, state) {
        Some((outcome, iss)) => Some(Brought {
            outcome,
            iss,
            tab: Tab(stream),
        }),
        None => {
            let tab = Tab(stream);
            tab.say("404 Not Found", "There is nothing here.").await;
            None
        }
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut part = [0; 2048];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = stream.read(&mut part).await.ok().filter(|read| *read > 0)?;
        head.extend_from_slice(part.get(..read)?);
        if head.len() > HEAD_BYTES_MAX {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

type Told = (Result<String, String>, Option<String>);

/// What a request brings, if it is the one that is waited for.
fn parse(head: &str, path: &str, state: &str) -> Option<Told> {
    let target = head.lines().next()?.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?;
    let (at, query) = target.split_once('?')?;
    if at != path {
        return None;
    }
    let mut pairs = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // RFC 6749, 3.1: no parameter comes twice.
        if pairs.insert(unescape(name)?, unescape(value)?).is_some() {
            return None;
        }
    }
    if state.is_empty() || pairs.get("state").map(String::as_str) != Some(state) {
        return None;
    }
    let word = |text: &String| {
        let plain = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_');
        plain.take(WORD_BYTES_MAX).collect()
    };
    let outcome = match (pairs.remove("code"), pairs.get("error")) {
        (Some(code), None) if !code.is_empty() => Ok(code),
        (None, Some(error)) => Err(word(error)),
        _ => return None,
    };
    Some((outcome, pairs.remove("iss")))
}

/// `application/x-www-form-urlencoded`.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    char::from(bytes.next()?)
                        .to_digit(16)
                        .and_then(|digit| u8::try_from(digit).ok())
                };
                digit()? * 16 + digit()?
            }
            other => other,
        });
    }
    String::from_utf8(plain).ok()
}

impl Tab {
    /// Tells the person how it ended.
    pub async fn answer(self, logged_in: bool) {
        let words = match logged_in {
            true => "You are logged in. This page may be closed.",
            false => "You are not logged in. The terminal says why.",
        };
        self.say("200 OK", words).await;
    }

    async fn say(mut self, status: &str, words: &str) {
        let page = format!("<!doctype html><meta charset=utf-8><title>Strongroom</title><p>{words}\n");
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\
             cache-control: no-store\r\nreferrer-policy: no-referrer\r\nx-content-type-options: nosniff\r\n\
             content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n\r\n{page}",
            page.len()
        );
        let said = async {
            self.0.write_all(answer.as_bytes()).await?;
            self.0.shutdown().await?;
            // The reader has it when it hangs up.
            self.0.read(&mut [0; 64]).await.map(drop)
        };
        // Whether anybody reads it changes nothing.
        let _ = timeout(TAB_PATIENCE, said).await;
    }
}

/// Starts the system's browser. The URL has nothing secret in it.
pub fn open(url: &str) -> bool {
    let screen = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let (program, first): (_, &[&str]) = match env::consts::OS {
        "macos" => ("open", &[]),
        "windows" => ("rundll32", &["url.dll,FileProtocolHandler"]),
        _ if screen("DISPLAY") || screen("WAYLAND_DISPLAY") => ("xdg-open", &[]),
        _ => return false,
    };
    let started = Command::new(program)
        .args(first)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(target: &str) -> Option<Told> {
        parse(
            &format!("GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"),
            "/callback",
            "s1",
        )
    }

    /// R-AUTH-1: only what brings the state of this log-in, to its path, is heard; nothing else ends it.
    #[test]
    fn only_the_right_browser_is_heard() {
        let code = |code: &str, iss: Option<&str>| Some((Ok(code.to_owned()), iss.map(str::to_owned)));
        for (target, want) in [
            ("/callback?code=a%2Fb&state=s1", code("a/b", None)),
            (
                "/callback?state=s1&code=c&iss=https%3A%2F%2Fid.example.com",
                code("c", Some("https://id.example.com")),
            ),
            (
                "/callback?error=access_denied&state=s1",
                Some((Err("access_denied".to_owned()), None)),
            ),
            (
                "/callback?error=%1b%5B31m<script>&state=s1",
                Some((Err("31mscript".to_owned()), None)),
            ),
            ("/callback?code=c", None),
            ("/callback?code=c&state=s2", None),
            ("/callback?code=c&state=", None),
            ("/callback?code=c&state=s1&state=s1", None),
            ("/callback?code=c&code=d&state=s1", None),
            ("/callback?code=c&error=x&state=s1", None),
            ("/callback?code=&state=s1", None),
            ("/callback?state=s1", None),
            ("/callback?code=%zz&state=s1", None),
            ("/callback?code=%ff&state=s1", None),
            ("/callback?code=%2&state=s1", None),
            ("/callback", None),
            ("/favicon.ico", None),
            ("/callback/x?code=c&state=s1", None),
            ("http://evil.example/callback?code=c&state=s1", None),
        ] {
            assert_eq!(told(target), want, "{target}");
        }
        assert!(parse("POST /callback?code=c&state=s1 HTTP/1.1\r\n\r\n", "/callback", "s1").is_none());
        assert!(parse("GET /callback?code=c&state= HTTP/1.1\r\n\r\n", "/callback", "").is_none());
    }

    proptest! {
        /// Fuzz: any head is answered.
        #[test]
        fn any_head(head: String) {
            let _ = parse(&head, "/callback", "s1");
            let _ = unescape(&head);
        }
    }

    /// A stranger's connections end nothing; the browser that comes last is heard, and hears how it ended.
    #[tokio::test]
    async fn strangers_end_nothing() {
        let waiting = Waiting::at(0).await.unwrap();
        let port = waiting.port().unwrap();
        let (waiting, path) = waiting
            .at_redirect(&format!("http://127.0.0.1:{port}/callback"))
            .await
            .unwrap();
        let _silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let ask = move |target: &'static str| async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream
                .write_all(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let browser = tokio::spawn(async move {
            assert!(ask("/callback?code=c&state=wrong").await.starts_with("HTTP/1.1 404"));
            ask("/callback?code=c&state=s1").await
        });
        let brought = waiting.brought(&path, "s1").await.unwrap();
        assert_eq!(brought.outcome, Ok("c".to_owned()));
        brought.tab.answer(true).await;
        let page = browser.await.unwrap();
        assert!(
            page.contains("You are logged in") && page.contains("no-store"),
            "{page}"
        );
    }

    #[tokio::test]
    async fn no_other_machine_is_waited_for() {
        for redirect in [
            "https://127.0.0.1:1/x",
            "http://evil.example:1/x",
            "http://127.0.0.1:x/",
            "http://127.0.0.1:1",
        ] {
            assert!(
                Waiting::at(0).await.unwrap().at_redirect(redirect).await.is_err(),
                "{redirect}"
            );
        }
    }
}
