use std::sync::{Arc, Mutex};

use model::time::Timestamp;
use testkit::{TestDb, on_each_database};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Fixture;
use crate::mail::{Delivery, GIVE_UP_MS, MailConfig, MailTls, Mailer};

/// An SMTP server (RFC 5321) whose answers to RCPT TO are prescribed; when they are used up, it takes everything.
#[derive(Clone)]
pub(super) struct Server {
    port: u16,
    answers: Arc<Mutex<Vec<&'static str>>>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answers = answers.iter().rev().copied().collect();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            answers: Arc::new(Mutex::new(answers)),
            taken: Arc::default(),
        };
        let own = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                tokio::spawn(async move { own.serve(stream).await.unwrap() });
            }
        });
        server
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 sink.example ESMTP\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match verb.as_str() {
                "EHLO" => "250-sink.example\r\n250 8BITMIME",
                "RCPT" => self.answers.lock().unwrap().pop().unwrap_or("250 ok"),
                "DATA" => {
                    write.write_all(b"354 go on\r\n").await?;
                    let mut message = String::new();
                    while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                        message.push_str(line.strip_prefix('.').unwrap_or(&line));
                        message.push('\n');
                    }
                    self.taken.lock().unwrap().push(message);
                    "250 taken"
                }
                "QUIT" => {
                    write.write_all(b"221 bye\r\n").await?;
                    return Ok(());
                }
                _ => "250 ok",
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    pub(super) fn mailer(&self) -> Mailer {
        mailer(self.port)
    }

    fn headers(&self, name: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let header = |message: &String| message.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        taken.iter().filter_map(header).collect()
    }
}

fn config(port: u16) -> MailConfig {
    MailConfig {
        host: "127.0.0.1".to_owned(),
        port,
        tls: MailTls::None,
        from: "Reports <reports@example.com>".to_owned(),
        credentials: None,
        installation: "018f-test.tandem".to_owned(),
    }
}

fn mailer(port: u16) -> Mailer {
    Mailer::new(&config(port)).unwrap()
}

/// A finished run with mail for these recipients in the outbox.
pub(super) async fn finished(db: &TestDb, recipients: &[&str]) -> Fixture {
    let f = Fixture::new(db).await;
    f.set("2026-11-24T00:00:00Z");
    f.requested("2026-10", recipients).await;
    assert_eq!(f.store.run_due("node-1").await.unwrap(), 1);
    f
}

const SENT: Delivery = Delivery { sent: 1, retried: 0, given_up: 0 };
const RETRIED: Delivery = Delivery { sent: 0, retried: 1, given_up: 0 };
const GIVEN_UP: Delivery = Delivery { sent: 0, retried: 0, given_up: 1 };
const NONE: Delivery = Delivery { sent: 0, retried: 0, given_up: 0 };

#[tokio::test]
async fn a_report_arrives_with_page_and_table() {
    on_each_database(async |db: TestDb| {
        let f = finished(&db, &["ops@example.com", "boss@example.com"]).await;
        let server = Server::start(&[]).await;
        let done = f.store.deliver_due(&server.mailer(), "node-1").await.unwrap();
        assert_eq!(done, Delivery { sent: 2, ..NONE });
        assert_eq!(f.store.deliver_due(&server.mailer(), "node-1").await.unwrap(), NONE);
        let ids = server.headers("Message-ID: ");
        assert!(ids.len() == 2 && ids[0] != ids[1] && ids[0].ends_with("@018f-test.tandem>"), "{ids:?}");
        assert_eq!(server.headers("To: "), ["boss@example.com", "ops@example.com"]);
        let message = server.taken.lock().unwrap()[0].clone();
        for part in [
            "multipart/alternative",
            "text/plain",
            "text/html",
            "text/csv",
            "call-report-2026-10-r0.csv",
            "call-report-2026-10-r0.xlsx",
        ] {
            assert!(message.contains(part), "{part}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_busy_or_away_is_tried_again() {
    on_each_database(async |db: TestDb| {
        let f = finished(&db, &["ops@example.com"]).await;
        let server = Server::start(&["451 4.7.1 greylisted"]).await;
        // Nobody listens on a port that was just given back.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        assert_eq!(f.store.deliver_due(&mailer(closed), "node-1").await.unwrap(), RETRIED);
        assert_eq!(f.store.deliver_due(&server.mailer(), "node-1").await.unwrap(), NONE, "not before its time");
        f.world.clock.advance_ms(60_000);
        assert_eq!(f.store.deliver_due(&server.mailer(), "node-1").await.unwrap(), RETRIED);
        f.world.clock.advance_ms(120_000);
        assert_eq!(f.store.deliver_due(&server.mailer(), "node-1").await.unwrap(), SENT);
        assert_eq!(server.taken.lock().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_for_good_and_three_days_end_the_attempts() {
    on_each_database(async |db: TestDb| {
        let f = finished(&db, &["nobody@example.com", "ops@example.com"]).await;
        let server = Server::start(&["550 5.1.1 no such user", "451 later"]).await;
        let done = f.store.deliver_due(&server.mailer(), "node-1").await.unwrap();
        assert_eq!(done, Delivery { sent: 0, retried: 1, given_up: 1 });
        let created: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        f.world.clock.set_utc(created.plus_ms(GIVE_UP_MS));
        let away = Server::start(&["451 later"]).await;
        assert_eq!(f.store.deliver_due(&away.mailer(), "node-1").await.unwrap(), GIVEN_UP);
        assert_eq!(f.store.deliver_due(&away.mailer(), "node-1").await.unwrap(), NONE);
        assert_eq!(f.scalar("SELECT COUNT(*) FROM outbox WHERE state = 'failed' AND last_error LIKE '%5%'").await, 2);
    })
    .await;
}

#[tokio::test]
async fn a_mail_that_is_sent_twice_has_the_same_message_id() {
    on_each_database(async |db: TestDb| {
        let f = finished(&db, &["ops@example.com"]).await;
        let server = Server::start(&[]).await;
        // The node dies between the server's 250 and its own commit.
        let queued = db::outbox::due(&f.db, "mail:", f.store.now(), 1).await.unwrap();
        f.store.send(&server.mailer(), &queued[0]).await.unwrap();
        assert_eq!(f.other_node().deliver_due(&server.mailer(), "node-2").await.unwrap(), SENT);
        let ids = server.headers("Message-ID: ");
        assert_eq!(ids[0], ids[1]);
        assert_eq!(server.headers("Date: ")[0], server.headers("Date: ")[1]);
    })
    .await;
}

#[tokio::test]
async fn only_the_holder_of_the_lease_sends() {
    on_each_database(async |db: TestDb| {
        let f = finished(&db, &["ops@example.com"]).await;
        let server = Server::start(&[]).await;
        let (mailer, other) = (server.mailer(), f.other_node());
        let (a, b) = tokio::join!(f.store.deliver_due(&mailer, "node-1"), other.deliver_due(&mailer, "node-2"));
        assert_eq!(a.unwrap().sent + b.unwrap().sent, 1);
        assert_eq!(server.taken.lock().unwrap().len(), 1);
    })
    .await;
}

#[test]
fn a_malformed_configuration_is_refused() {
    assert!(Mailer::new(&MailConfig { from: "nobody".into(), ..config(25) }).is_err());
    assert!(Mailer::new(&MailConfig { installation: "a>b".into(), ..config(25) }).is_err());
    assert!(Mailer::new(&MailConfig { tls: MailTls::Starttls, ..config(587) }).is_ok());
    assert!(
        !format!("{:?}", MailConfig { credentials: Some(("u".into(), "geheim".into())), ..config(25) })
            .contains("geheim")
    );
}
