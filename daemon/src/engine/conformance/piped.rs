//! A session by the server's own command-line client: questions in, lines out.

use std::time::Duration;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Longest wait for a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. It ends when it is dropped.
pub(crate) struct Piped {
    _child: Child,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Piped {
    /// Starts the client.
    pub fn open(command: &mut Command) -> Self {
        let mut child = command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            questions: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()).lines(),
            _child: child,
        }
    }

    /// The first line of the answer; `None`: there is none, for the session has ended.
    pub async fn ask(&mut self, question: &str) -> Option<String> {
        self.questions
            .write_all(format!("{question}\n").as_bytes())
            .await
            .ok()?;
        self.questions.flush().await.ok()?;
        tokio::time::timeout(PATIENCE, self.answers.next_line())
            .await
            .ok()?
            .ok()?
    }
}
