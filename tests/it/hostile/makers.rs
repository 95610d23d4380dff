//! The three libraries, each in a process of its own (`tests/jose`): a line for each token that it is to make, a line with the token.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};
use strongroom_tests::lab::binary;

/// Debian's.
const PYTHON: &str = "/usr/bin/python3";
/// How many there are.
pub const LIBRARIES: usize = 3;

/// Of a token.
pub enum Header {
    /// In whatever order and spelling.
    Members(Value),
    /// These very bytes, which no library writes.
    Text(String),
}

/// One of them.
pub struct Maker {
    /// `jose`, `joserfc`, `go-jose`.
    pub name: &'static str,
    /// With its version.
    pub library: String,
    /// Rows that it did not make itself, and what it said.
    pub by_hand: BTreeMap<String, String>,
    keys: Value,
    process: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

/// All that are there, with keys of their own. What is missing is said; CI does not accept it.
pub fn all(keys: &Value) -> Vec<Maker> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("jose");
    // Beside the binaries: what is fetched stays for the next time, and out of the tree.
    let place = binary("strongroom").parent().unwrap().join("hostile-tokens");
    let start = |name, command: Command| Maker::start(name, command, keys);
    let mut makers = vec![
        start("jose", jose(&tree.join("jose"), &place.join("jose"))),
        start("joserfc", joserfc(&tree.join("joserfc"), &place.join("joserfc"))),
    ];
    match go_jose(&tree.join("go-jose")) {
        Some(command) => makers.push(start("go-jose", command)),
        None => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI needs Go to make tokens with go-jose"
            );
            eprintln!("NOT MADE: there is no Go here, so no tokens of go-jose were tried. Install Go 1.26 or newer.");
        }
    }
    makers
}

fn run(command: &mut Command) {
    let ran = command.output().expect("what scripts/deps installs");
    let told = [ran.stdout, ran.stderr].concat();
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&told));
}

fn copy(from: &Path, to: &Path, files: &[&str]) {
    fs::create_dir_all(to).unwrap();
    for file in files {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// Has what the file `wanted` pins fetched, unless that was done already.
fn fetch(wanted: &Path, place: &Path, fetch: &mut Command) {
    let (text, done) = (fs::read(wanted).unwrap(), place.join("done"));
    if fs::read(&done).ok().as_ref() != Some(&text) {
        run(fetch);
        fs::write(&done, text).unwrap();
    }
}

fn jose(from: &Path, place: &Path) -> Command {
    copy(from, place, &["package.json", "package-lock.json", "make.mjs"]);
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    let wanted = from.join("package-lock.json");
    fetch(
        &wanted,
        place,
        Command::new("/usr/bin/npm").args(npm).current_dir(place),
    );
    let mut command = Command::new("/usr/bin/node");
    command.arg("make.mjs").current_dir(place);
    command
}

fn joserfc(from: &Path, place: &Path) -> Command {
    fs::create_dir_all(place).unwrap();
    let (wanted, lib) = (from.join("requirements.txt"), place.join("lib"));
    let pip = "-m pip install --quiet --upgrade --require-hashes --only-binary :all: --target";
    let mut install = Command::new(PYTHON);
    install.args(pip.split(' ')).arg(&lib).arg("--requirement").arg(&wanted);
    fetch(&wanted, place, &mut install);
    let mut command = Command::new(PYTHON);
    command
        .arg(from.join("make.py"))
        .env("PYTHONPATH", lib)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn go_jose(from: &Path) -> Option<Command> {
    let is_there = Command::new("go")
        .arg("version")
        .output()
        .is_ok_and(|ran| ran.status.success());
    let mut command = Command::new("go");
    command
        .args(["run", "-mod=readonly", "."])
        .current_dir(PathBuf::from(from));
    is_there.then_some(command)
}

impl Maker {
    fn start(name: &'static str, mut command: Command, keys: &Value) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (to, from) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut maker = Self {
            name,
            library: String::new(),
            by_hand: BTreeMap::new(),
            keys: Value::Null,
            process,
            to,
            from: BufReader::new(from).lines(),
        };
        let told = maker.ask(&json!({ "keys": keys }));
        maker.library = told["library"].as_str().unwrap().to_owned();
        maker.keys = told["keys"].clone();
        maker
    }

    fn ask(&mut self, line: &Value) -> Value {
        writeln!(self.to, "{line}").unwrap();
        let line = self.from.next();
        let line = line
            .unwrap_or_else(|| panic!("{} ended: its words are above", self.name))
            .unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// A public key as a JWK; the private one with `is_private`.
    pub fn jwk(&self, key: &str, is_private: bool) -> Map<String, Value> {
        let kind = if is_private { "private" } else { "public" };
        let jwk = self.keys[key][kind].as_object();
        jwk.unwrap_or_else(|| panic!("no key {key}")).clone()
    }

    /// Signs `payload` under `header` for the row `name`. A key that begins with `secret:` is bytes in base64url, or a public key in `pem:` or `der:`.
    pub fn sign(&mut self, name: &str, header: &Header, payload: &[u8], key: &str, algorithm: &str) -> String {
        let (header, is_exact) = match header {
            Header::Members(members) => (members.to_string(), false),
            Header::Text(text) => (text.clone(), true),
        };
        let mut asked = json!({ "header": header, "payload": BASE64URL_NOPAD.encode(payload), "alg": algorithm, "exact": is_exact });
        match key
            .strip_prefix("secret:")
            .map(|secret| secret.split_once(':').unwrap_or(("", secret)))
        {
            None => asked["key"] = key.into(),
            Some(("pem", key)) => {
                let pem = self.keys[key]["pem"].as_str().unwrap();
                asked["secret"] = BASE64URL_NOPAD.encode(pem.as_bytes()).into();
            }
            Some(("der", key)) => asked["secret"] = self.keys[key]["der"].clone(),
            Some((_, secret)) => asked["secret"] = secret.into(),
        }
        let made = self.ask(&asked);
        if made["by"] != "library" {
            self.by_hand
                .insert(name.to_owned(), made["why"].as_str().unwrap_or_default().to_owned());
        }
        made["token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // `go run` passes nothing on: its child ends with its input, which ends here.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
