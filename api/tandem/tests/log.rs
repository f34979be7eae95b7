//! What the daemon logs at level debug, as JSON, through registrations, calls and provisioning: readable for a program,
//! and without a number, a secret or a message body. SIGHUP changes the level of the same daemon.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tandem::config::LogFormat;
use tandem::demo::calls;
use tandem::demo::installation::{Installation, configure};
use tandem::demo::process::DaemonProcess;

/// Digits of a word that is taken for a number that was not masked: up to an international prefix and E.164's 15. Longer
/// ones are bounds of statements.
const DIGITS: std::ops::RangeInclusive<usize> = 8..=18;

fn lines(at: &Installation) -> Vec<Value> {
    let text = std::fs::read_to_string(&at.log_file).expect("there is a log");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!({ "not json": line }))).collect()
}

/// Sends SIGHUP and waits for a line that answers.
async fn hang_up(at: &Installation, daemon: &DaemonProcess, answer: &str) {
    let before = lines(at).len();
    let id = daemon.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
    kill(Pid::from_raw(id), Signal::SIGHUP).expect("it is told");
    let answered = tandem::demo::await_some("an answer", async || {
        let found = lines(at)
            .iter()
            .skip(before)
            .any(|line| line["fields"]["message"].as_str().unwrap_or_default().contains(answer));
        Ok::<_, std::io::Error>(found.then_some(()))
    });
    answered.await.expect(answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_at_level_debug_tells_a_number_a_secret_or_a_body() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = configure(dir.path()).expect("free ports");
    config.log.format = LogFormat::Json;
    config.log.level = "debug".to_owned();
    let server = config.sip.transport.listen;
    let at = Installation::prepare(Path::new(env!("CARGO_BIN_EXE_tandem")), dir.path(), config).await;
    let at = at.expect("an installation");
    let daemon = at.start().await.expect("it starts");
    let carrier = calls::start_carrier(server).await.expect("a carrier");
    let client = at.client().expect("a client");
    let world = tandem::demo::world::provision(client, &at.provider_account, carrier.local_addr()).await;
    let world = world.expect("the world");
    let party = calls::register(&world, server, carrier).await.expect("the phones register");
    // Of every kind one: answered within and without, busy, unanswered, cancelled, refused for a wrong password.
    let mut kinds = std::collections::BTreeSet::new();
    let plans: Vec<_> = calls::plan(&world).into_iter().filter(|plan| kinds.insert(plan.kind)).collect();
    assert!(kinds.len() > 6, "{kinds:?}");
    party.run(plans, || {}).await.expect("the calls are placed");
    // What is refused, and what nobody understands.
    let wrong = world.provider.with_token(model::secret::Secret::new("tdm_wrong_token_of_nobody".to_owned()));
    assert!(wrong.get("/billing/streams").await.is_err());
    assert!(world.provider.mutate("accountCreate", json!({ "parentId": "x", "name": "+43720999888" })).await.is_err());
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for noise in ["MESSAGE sip:+43720100999@alpha.example SIP/2.0\r\n\r\nbody-of-a-message", "noise +43720100999"] {
        socket.send_to(noise.as_bytes(), server).await.expect("it is sent");
    }
    tandem::demo::await_settled(&at).await.expect("billed");

    // A level and back; a configuration that cannot be used.
    let text = std::fs::read_to_string(&at.config_file).expect("it can be read");
    let level = |level: &str| {
        let text = text.replace("level = \"debug\"", &format!("level = \"{level}\""));
        std::fs::write(&at.config_file, text).expect("it can be written");
    };
    let requests = || lines(&at).iter().filter(|line| line["fields"]["message"] == "request answered").count();
    level("warn");
    hang_up(&at, &daemon, "this log level is in force").await;
    let before = requests();
    world.provider.get("/billing/streams").await.expect("it answers");
    assert_eq!(requests(), before, "information is not logged any more");
    level("a=b=c");
    hang_up(&at, &daemon, "everything stays as it was").await;
    level("debug");
    hang_up(&at, &daemon, "this log level is in force").await;
    world.provider.get("/billing/streams").await.expect("it answers");
    tandem::demo::await_some("a line", async || Ok::<_, std::io::Error>((requests() > before).then_some(())))
        .await
        .expect("it is logged again");
    daemon.terminate().await.expect("it drains");

    let text = std::fs::read_to_string(&at.log_file).expect("there is a log");
    let all = lines(&at);
    assert!(all.len() > 50 && all.iter().all(|line| line["level"].is_string()), "{} lines:\n{text}", all.len());
    let mut secrets = vec![at.token.expose().clone(), world.bss_token.expose().clone(), "tdm_wrong_token".to_owned()];
    secrets.extend(world.resellers.iter().map(|reseller| reseller.token.expose().clone()));
    for phone in &world.phones {
        secrets.push(phone.password.expose().clone());
        secrets.push(phone.number.trim_start_matches('+').to_owned());
        secrets.push(phone.number.replace("+43", "0"));
    }
    secrets.extend(["body-of-a-message", "m=audio", "v=0", "response=", "nonce=", "493012345678"].map(str::to_owned));
    for secret in &secrets {
        let leak = text.lines().find(|line| line.contains(secret));
        assert_eq!(leak, None, "the log tells {secret}");
    }
    for line in &all {
        numbers_masked(line, &line["fields"]);
        numbers_masked(line, &line["span"]);
        numbers_masked(line, &line["spans"]);
    }
}

/// No text of a line holds a long run of digits, or an HA1 or other digest in hex; identifiers (UUIDs) may stand there.
fn numbers_masked(line: &Value, value: &Value) {
    match value {
        Value::String(text) => {
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '+') {
                if uuid::Uuid::parse_str(word).is_ok_and(|_| word.contains('-')) {
                    continue;
                }
                let digits = word.trim_start_matches('+');
                let is_number = DIGITS.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
                let is_digest = word.len() >= 32 && word.bytes().all(|b| b.is_ascii_hexdigit());
                assert!(!is_number && !is_digest, "{word} in {line}");
            }
        }
        Value::Array(values) => values.iter().for_each(|value| numbers_masked(line, value)),
        Value::Object(values) => values.values().for_each(|value| numbers_masked(line, value)),
        _ => {}
    }
}
