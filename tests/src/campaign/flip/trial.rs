//! Trials in a process of their own, so that a panic or an abort is a verdict: one flip a line on standard input, one verdict a line back.

use super::{
    fixture::{Expected, engine_dir},
    judge::{Class, Verdict, judge, judge_bare, stored_rows},
};
use crate::campaign::{Tried, report::say};
use data_encoding::HEXLOWER;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};
use strongroomd::store::physical::{Engine, Write as EngineWrite, fjall::FjallEngine};

/// A trial that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// One changed bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flip {
    /// In a file, by its index.
    File { file: usize, offset: u64, bit: u8 },
    /// In a stored row, by its index: what a flip in memory, or on a disk whose engine has no checksums, would be.
    Row { row: usize, offset: u64, bit: u8 },
}

impl Flip {
    fn to_text(self) -> String {
        match self {
            Self::File { file, offset, bit } => format!("file {file} {offset} {bit}"),
            Self::Row { row, offset, bit } => format!("row {row} {offset} {bit}"),
        }
    }
    fn parse(line: &str) -> Tried<Self> {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["file", file, offset, bit] => Ok(Self::File {
                file: file.parse()?,
                offset: offset.parse()?,
                bit: bit.parse()?,
            }),
            ["row", row, offset, bit] => Ok(Self::Row {
                row: row.parse()?,
                offset: offset.parse()?,
                bit: bit.parse()?,
            }),
            _ => Err("not a flip".into()),
        }
    }
}

/// A file of the fixture.
#[derive(Clone, Debug)]
pub struct Kept {
    pub path: PathBuf,
    length: u64,
    /// Up to the last byte that is not zero.
    pub written: Vec<u8>,
}

/// A whole data directory in memory, and what should be read from it.
pub struct Fixture {
    pub files: Vec<Kept>,
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    expected: Expected,
}

impl Fixture {
    /// Takes the directory as it is; `expected` is what [`super::fixture`] said of it; `copy` is a place to open it in.
    pub fn take(dir: &Path, expected: Expected, copy: &Path) -> Tried<Self> {
        let mut files = Vec::new();
        walk(dir, dir, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let fixture = Self {
            files,
            rows: BTreeMap::new(),
            expected,
        };
        fixture.put(copy, None)?;
        let rows = stored_rows(copy)?;
        fs::remove_dir_all(copy)?;
        Ok(Self { rows, ..fixture })
    }

    /// Writes the directory anew, with a flip if there is one.
    fn put(&self, dir: &Path, flip: Option<Flip>) -> Tried<()> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir.join("store"))?;
        for (index, kept) in self.files.iter().enumerate() {
            let path = dir.join(&kept.path);
            fs::create_dir_all(path.parent().unwrap_or(dir))?;
            fs::write(&path, &kept.written)?;
            let file = fs::File::options().write(true).open(&path)?;
            file.set_len(kept.length)?;
            if let Some(Flip::File { file: at, offset, bit }) = flip
                && at == index
            {
                let byte = kept.written.get(usize::try_from(offset)?).ok_or("no such byte")?;
                file.write_all_at(&[byte ^ (1 << bit)], offset)?;
            }
        }
        if let Some(Flip::Row { row, offset, bit }) = flip {
            let (key, row) = self.rows.iter().nth(row).ok_or("no such row")?;
            let mut row = row.clone();
            *row.get_mut(usize::try_from(offset)?).ok_or("no such byte")? ^= 1 << bit;
            let engine = FjallEngine::open(&engine_dir(dir))?;
            engine.commit(&[EngineWrite {
                key: key.clone().into(),
                value: Some(row.into()),
            }])?;
        }
        Ok(())
    }

    pub fn save(&self, file: &Path) -> Tried<()> {
        let Expected {
            rows,
            tokens,
            secrets,
            audit_records,
            now,
            root,
        } = &self.expected;
        let rows: Vec<_> = rows
            .iter()
            .map(|(table, key, value)| (table, key, HEXLOWER.encode(value)))
            .collect();
        let secrets: Vec<_> = secrets
            .iter()
            .map(|(path, value)| (path, HEXLOWER.encode(value)))
            .collect();
        Ok(fs::write(
            file,
            serde_json::to_vec(&(rows, tokens, secrets, audit_records, now, root))?,
        )?)
    }

    fn read(dir: &Path, file: &Path, copy: &Path) -> Tried<Self> {
        type Saved = (
            Vec<(u8, String, String)>,
            Vec<String>,
            Vec<(String, String)>,
            u64,
            u64,
            [u8; 32],
        );
        let (rows, tokens, secrets, audit_records, now, root): Saved = serde_json::from_slice(&fs::read(file)?)?;
        let rows = rows
            .into_iter()
            .map(|(table, key, value)| Tried::Ok((table, key, HEXLOWER.decode(value.as_bytes())?)));
        let secrets = secrets
            .into_iter()
            .map(|(path, value)| Tried::Ok((path, HEXLOWER.decode(value.as_bytes())?)));
        let (rows, secrets) = (rows.collect::<Tried<_>>()?, secrets.collect::<Tried<_>>()?);
        Self::take(
            dir,
            Expected {
                rows,
                tokens,
                secrets,
                audit_records,
                now,
                root,
            },
            copy,
        )
    }
}

fn walk(root: &Path, dir: &Path, files: &mut Vec<Kept>) -> Tried<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, files)?;
            continue;
        }
        let mut written = fs::read(&path)?;
        let length = written.len() as u64;
        written.truncate(written.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        files.push(Kept {
            path: path.strip_prefix(root)?.into(),
            length,
            written,
        });
    }
    Ok(())
}

static PANICKED: Mutex<Option<String>> = Mutex::new(None);

/// The process. `bare`: the control's reader.
pub async fn run(dir: &Path, saved: &Path, work: &Path, bare: bool) -> Tried<()> {
    let fixture = Fixture::read(dir, saved, work)?;
    std::panic::set_hook(Box::new(|info| {
        *PANICKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string().replace('\n', " "));
    }));
    for line in std::io::stdin().lines() {
        let flip = Flip::parse(&line?)?;
        fixture.put(work, Some(flip))?;
        let mut verdict = if bare {
            judge_bare(work, &fixture.rows)
        } else {
            judge(work, &fixture.expected).await
        };
        let panic = PANICKED.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic inside the engine that the store turned into an error is a refusal.
        let refused = verdict.class == Class::Refused && verdict.words.contains("panicked");
        if let Some(panic) = panic.filter(|_| !refused) {
            verdict = Verdict::new(Class::Panic, panic);
        }
        say(format_args!(
            "{}|{}|{}",
            verdict.class.name(),
            u8::from(verdict.policies),
            verdict.words.replace('\n', " ")
        ));
    }
    Ok(())
}

/// A running trial process, started again when it dies.
pub struct Trials {
    command: Box<dyn Fn() -> Tried<Child> + Send>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    ask: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Trials {
    pub fn new(dir: PathBuf, saved: PathBuf, work: PathBuf, bare: bool) -> Self {
        let command = move || {
            let mut command = Command::new(std::env::current_exe()?);
            command
                .arg("flip-trials")
                .arg(&dir)
                .arg(&saved)
                .arg(&work)
                .args(bare.then_some("--bare"));
            Ok(command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?)
        };
        Self {
            command: Box::new(command),
            running: None,
        }
    }

    fn start(&self) -> Tried<Running> {
        let mut child = (self.command)()?;
        let ask = child.stdin.take().ok_or("no input")?;
        let out = BufReader::new(child.stdout.take().ok_or("no output")?);
        let (tell, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Running { child, ask, answers })
    }

    /// Makes one flip and judges.
    pub fn try_one(&mut self, flip: Flip) -> Tried<Verdict> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        writeln!(running.ask, "{}", flip.to_text())?;
        let line = running.answers.recv_timeout(PATIENCE);
        let Ok(line) = line else {
            running.child.kill()?;
            let status = running.child.wait()?;
            return Ok(Verdict::new(
                Class::Panic,
                format!("the process ended ({status}) or hung"),
            ));
        };
        self.running = Some(running);
        let mut words = line.splitn(3, '|');
        let class = words
            .next()
            .and_then(|name| Class::ALL.into_iter().find(|class| class.name() == name));
        let class = class.ok_or_else(|| format!("a trial gave no verdict: {line}"))?;
        let policies = words.next() == Some("1");
        Ok(Verdict {
            class,
            policies,
            words: words.next().unwrap_or_default().into(),
        })
    }
}

impl Drop for Trials {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
