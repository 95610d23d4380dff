//! The hostile table (`tests/jose/rows.json`) on the real daemon: each row made by each of three independent libraries, each refused for what is
//! wrong with it, and the good ones taken. Reading order: `makers` (the libraries), `rows` (from a row to a token), this file.

mod door;
mod makers;
mod rows;

use crate::{
    audit::records,
    login::{Issuer, put_trust},
    world::{World, value},
};
use door::{Answer, Door};
use makers::Maker;
use rows::{Row, Surroundings, Table};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use strongroom_client::v1;
use strongroom_tests::{Lab, lab::RATES_OFF};

/// What the daemon of these tests calls itself.
const ORIGIN: &str = "https://vault.example.com:8470";
const LOGIN: &str = "/strongroom.v1.Login/Login";
/// The issuer whose tokens log in with a proof.
const HOLDERS: &str = "holders";

/// A world with the origin, and a nonce of a run of its daemon that is over.
async fn world() -> (World, String) {
    let mut lab = Lab::with_tokens(&[]);
    lab.listener = format!("origin = \"{ORIGIN}\"");
    lab.extra = RATES_OFF.to_owned();
    let mut world = World::opened(lab);
    world.client().await.put("kv/hostile", &value("x"), None).await.unwrap();
    world.put_policy(
        "hostile",
        r#"permit(principal in S::Group::"holders", action == S::Action::"read", resource in S::Path::"kv/hostile");"#,
    );
    let before = nonce(&world).await;
    world.restart();
    world.unseal("daily");
    assert_ne!(before, nonce(&world).await, "each run has nonces of its own");
    (world, before)
}

/// What the daemon tells whoever shows a proof, whatever it is worth.
async fn nonce(world: &World) -> String {
    let answer = Door::new(&world.lab).read("srm_at_x", "a.b.c").await;
    assert_eq!(answer.reason, "TOKEN_INVALID");
    answer.nonce.expect("a nonce")
}

/// What came of each row: its name, and the answer to it.
type Answers<'t> = Vec<(&'t Row, Answer)>;

/// The words that the audit log has for these answers: why a log-in was refused, and what was wrong with a proof.
fn words(world: &World, answers: &Answers<'_>) -> BTreeMap<String, (String, String)> {
    let wanted: BTreeSet<_> = answers.iter().map(|(_, answer)| answer.request.as_str()).collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    records(&world.cli())
        .iter()
        .filter(|record| wanted.contains(record["request"].as_str().unwrap_or("-")))
        .map(|record| {
            let params = &record["params"];
            (
                text(&record["request"]),
                (text(&params["refused"]), text(&params["proof"])),
            )
        })
        .collect()
}

fn put_trusts(world: &World, table: &Table, maker: &Maker) {
    for (name, trust) in table.trusts(maker) {
        put_trust(world, &name, &trust);
    }
}

/// Logs in with every token of the table as `maker` makes it.
async fn log_ins<'t>(world: &World, table: &'t Table, maker: &mut Maker) -> Answers<'t> {
    put_trusts(world, table, maker);
    let (mut door, mut texts, mut answers) = (Door::new(&world.lab), rows::Texts::default(), Vec::new());
    for row in &table.tokens {
        let token = texts.of(row, table, maker, &Surroundings::default());
        let message = v1::LoginRequest {
            trust: row.trust.clone(),
            proof: Some(v1::login_request::Proof::Jwt(token)),
            ..Default::default()
        };
        answers.push((row, door.log_in(message, None).await));
    }
    answers
}

/// Presents every proof of the table as `maker` makes it: for a call with the token that is bound to its key, or to log in.
async fn proofs<'t>(world: &World, table: &'t Table, maker: &mut Maker, before: &str) -> Answers<'t> {
    let issuer = Issuer::new(HOLDERS);
    put_trust(world, HOLDERS, &issuer.trust(&[HOLDERS]));
    let (mut door, mut texts, mut answers) = (Door::new(&world.lab), rows::Texts::default(), Vec::new());
    let mut bound: BTreeMap<&str, String> = BTreeMap::new();
    let (name, mut jti) = (maker.name, 0);
    let mut log_in = |proof: String| {
        jti += 1;
        let jwt = issuer.token(&format!("{name}-{jti}"), json!({}));
        let message = v1::LoginRequest {
            proof: Some(v1::login_request::Proof::Jwt(jwt)),
            binding: v1::LoginBinding::Dpop.into(),
            ..Default::default()
        };
        (message, proof)
    };
    let mut nonce = nonce(world).await;
    for row in &table.proofs {
        let mut around = Surroundings {
            nonce: nonce.clone(),
            before: before.to_owned(),
            now: None,
            htu: format!("{ORIGIN}{LOGIN}"),
            token: None,
        };
        let holder = row.holder();
        if !row.login && !bound.contains_key(holder) {
            let proof = texts.of(&table.plain_proof(holder), table, maker, &around);
            let (message, proof) = log_in(proof);
            let answer = door.log_in(message, Some(&proof)).await;
            assert_eq!(answer.reason, "", "a token bound to {holder}: {answer:?}");
            bound.insert(holder, answer.token);
        }
        if !row.login {
            around.htu = format!("{ORIGIN}/strongroom.v1.Kv/Get");
            around.token = bound.get(holder).cloned();
        }
        let proof = texts.of(row, table, maker, &around);
        let answer = match &around.token {
            Some(token) => door.read(token, &proof).await,
            None => {
                let (message, proof) = log_in(proof);
                door.log_in(message, Some(&proof)).await
            }
        };
        // It changes every two minutes.
        nonce = answer.nonce.clone().expect("whoever shows a proof is told the nonce");
        answers.push((row, answer));
    }
    answers
}

/// What is not as the table says, in words.
fn wrong(world: &World, answers: &Answers<'_>, are_proofs: bool) -> Vec<String> {
    let words = words(world, answers);
    let mut wrong = Vec::new();
    for (row, answer) in answers {
        let none = (String::new(), String::new());
        let (refused, proof) = words.get(&answer.request).unwrap_or(&none);
        let word = if are_proofs { proof } else { refused };
        let got = if answer.reason.is_empty() { "ok" } else { word };
        let reason = match (row.expect.as_str(), are_proofs, row.login) {
            ("ok", ..) => "",
            ("nonce", true, _) => "USE_DPOP_NONCE",
            (_, true, false) => "POSSESSION",
            _ => "LOGIN_REFUSED",
        };
        if got != row.expect || answer.reason != reason {
            wrong.push(format!("{}: {got}, not {}; {answer:?}", row.name, row.expect));
        }
    }
    wrong
}

/// R-AUTH-2, R-AUTH-3: some three hundred tokens and proofs, most of them hostile, made by jose, joserfc and go-jose: the daemon takes the good ones of each, and
/// refuses each other for the reason in the table. What a library does not make is put together by hand from its keys; the table says which.
#[tokio::test(flavor = "multi_thread")]
async fn three_libraries_hostile_tokens_meet_their_refusal() {
    let (table, (world, before)) = (Table::read(), world().await);
    let (mut wrongs, mut by_hand) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    let makers = makers::all(&table.keys);
    let made = makers.len();
    put_trusts(&world, &table, &makers[0]);
    // What was issued before its trust was made is not believed, and `iat` has whole seconds.
    tokio::time::sleep(Duration::from_millis(3100)).await;
    for mut maker in makers {
        let answers = log_ins(&world, &table, &mut maker).await;
        let mut told = wrong(&world, &answers, false);
        let good = answers.iter().filter(|(row, _)| row.expect == "ok").count();
        let answers = proofs(&world, &table, &mut maker, &before).await;
        told.extend(wrong(&world, &answers, true));
        let good = good + answers.iter().filter(|(row, _)| row.expect == "ok").count();
        let rows = table.tokens.len() + table.proofs.len();
        println!(
            "{}: {rows} rows, {good} of them good, {} put together by hand",
            maker.library,
            maker.by_hand.len()
        );
        assert!(rows - good >= 280 && good >= 30, "{rows} rows, {good} good");
        assert!(rows - maker.by_hand.len() >= 200, "the library itself makes most");
        wrongs.extend(told.iter().map(|told| format!("{}: {told}", maker.library)));
        for (name, why) in &maker.by_hand {
            println!("  {name}: {why}");
            by_hand.entry(name.clone()).or_default().push(maker.name.to_owned());
        }
    }
    for row in table.tokens.iter().chain(&table.proofs) {
        let hands = by_hand.remove(&row.name).unwrap_or_default();
        if made == makers::LIBRARIES && hands != row.hand {
            wrongs.push(format!(
                "{}: by hand for {hands:?}, the table says {:?}",
                row.name, row.hand
            ));
        }
    }
    assert!(wrongs.is_empty(), "{} wrong:\n{}", wrongs.len(), wrongs.join("\n"));
}

/// The vectors of the daemon's own tests, in which time stands still, are this table's tokens as joserfc made them. `STRONGROOM_WRITE_VECTORS` in the environment
/// has them made anew.
#[test]
fn the_vectors_are_of_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/tokens/tokens.json");
    let table = Table::read();
    if std::env::var_os("STRONGROOM_WRITE_VECTORS").is_some() {
        let mut makers = makers::all(&table.keys);
        let maker = makers.iter_mut().find(|maker| maker.name == "joserfc").unwrap();
        std::fs::write(path, vectors(&table, maker)).unwrap();
    }
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let cases = vectors["cases"].as_array().unwrap().iter();
    let theirs: Vec<_> = cases
        .map(|case| ["name", "expect", "trust"].map(|name| text(&case[name])))
        .collect();
    let rows = table.tokens.iter();
    let ours: Vec<_> = rows
        .map(|row| [&row.name, &row.expect, &row.trust].map(Clone::clone))
        .collect();
    assert_eq!(
        theirs, ours,
        "make them anew: STRONGROOM_WRITE_VECTORS=1 cargo test --test it the_vectors"
    );
}

fn vectors(table: &Table, maker: &mut Maker) -> String {
    let now = 1_795_000_000;
    let around = Surroundings {
        now: Some(now),
        ..Surroundings::default()
    };
    let mut texts = rows::Texts::default();
    let case = |row: &Row| {
        let token = texts.of(row, table, maker, &around);
        json!({ "name": row.name, "expect": row.expect, "trust": row.trust, "token": token }).to_string()
    };
    let cases: Vec<_> = table.tokens.iter().map(case).collect();
    let trusts: serde_json::Map<_, _> = table.trusts(maker).into_iter().collect();
    let (trusts, cases) = (Value::Object(trusts), cases.join(",\n  "));
    format!("{{\n\"now_secs\": {now},\n\"trusts\": {trusts},\n\"cases\": [\n  {cases}\n]\n}}\n")
}
