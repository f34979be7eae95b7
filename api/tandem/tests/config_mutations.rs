//! Configuration that nobody meant: files and environments by mutation. What is wrong is refused with a text; what is
//! taken is valid, and means the same when it is written and read again.

#![allow(clippy::unwrap_used, reason = "a test may stop at what must not be")]

use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tandem::config::Config;
use testkit::{Mutator, soak};

const SEED: u64 = 0xc0f1;
const FILES: u64 = 4_000;
/// Each is a process.
const ENVIRONMENTS: u64 = 60;

/// The sample of the tree, the defaults, and one with what the sample has not.
fn corpus() -> Vec<Vec<u8>> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/tandem.toml");
    let rich = "[database]\nurl = \"postgres://tandem:x@db/tandem\"\nconnections_max = 3\n[media]\nport_min = 20000\n\
        port_max = 24000\nsessions = 900\npublic = \"2001:db8::1\"\n[snmp]\nenterprise_number = 1\n[snmp.users.noc]\n\
        authentication = \"SHA-256\"\nauthentication_password = \"authentic1\"\nprivacy = \"AES-128\"\n\
        privacy_password = \"private12\"\n[[snmp.targets]]\nname = \"nms\"\naddress = \"[::1]:162\"\nversion = \"v3\"\n\
        user = \"noc\"\nkind = \"inform\"\n[snmp.agent]\nlisten = \"127.0.0.1:1161\"\n[snmp.agent.communities.nms]\n\
        community = \"monitor\"\nsources = [\"192.0.2.0/24\"]\n[sip.transport.tcp]\nenabled = false\n[[reports.monthly]]\n\
        account = \"01890000-0000-7000-8000-000000000000\"\nrecipients = [\"a@example.net\"]\n";
    vec![std::fs::read(sample).unwrap(), Config::default().to_toml().into_bytes(), rich.as_bytes().to_vec()]
}

#[test]
fn mutated_files_are_refused_with_a_text_or_taken_whole() {
    const SPICE: &[&[u8]] = &[
        b"\n",
        b"=",
        b"\"",
        b"'",
        b"\"\"\"",
        b"[",
        b"]",
        b"[[",
        b"]]",
        b"{",
        b"}",
        b".",
        b",",
        b"#",
        b"\\",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"-1",
        b"0",
        b"1e400",
        b"nan",
        b"99999999999999999999",
        b"0x7fffffffffffffff",
        b"true",
        b"1979-05-27T07:32:00Z",
        b"\\uD800",
        b"[node]\n",
        b"[a.b.c.d.e.f.g.h.i.j]\n",
        b"[[[[[[[[[[[[",
        b"= 4294967296\n",
        b"= 65536\n",
        b"\"0.0.0.0:0\"",
        b"\"[::]:0\"",
    ];
    let corpus = corpus();
    let mutator = Mutator::new(corpus, SPICE).with_changes(1..=2);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tandem.toml");
    let (mut taken, mut refused) = (0, 0);
    soak::campaign("configuration files", SEED, FILES, |_, random| {
        std::fs::write(&file, mutator.mutated(random)).unwrap();
        match Config::load(Some(&file)) {
            Ok(mut config) => {
                taken += 1;
                config.validate().expect("what is taken is valid");
                // Secrets are never written, and a community is nothing else.
                config.snmp.agent.communities.clear();
                let text = toml::to_string(&config).expect("what was read can be written");
                let again: Config = toml::from_str(&text).expect("what was written can be read");
                assert_eq!(toml::to_string(&again).as_ref(), Ok(&text));
                assert!(toml::from_str::<Config>(&config.to_toml()).is_ok(), "what is shown can be read");
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    });
    assert!(taken > 20 && refused > 20, "{taken} taken, {refused} refused");
}

#[test]
fn mutated_environments_are_refused_with_a_text_or_taken_whole() {
    const SPICE: &[&[u8]] = &[
        b"=",
        b"__",
        b"_",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b"\"",
        b"-1",
        b"\xff",
        b"99999999999999999999",
        b"true",
        b"nan",
        b"{a=1}",
        b"[1,2",
        b"\n",
        b" ",
        b"NODE",
        b"TANDEM_",
        b"SIP__TRANSPORT__",
    ];
    let variables: [&[u8]; 8] = [
        b"NODE__NAME=node2",
        b"DATABASE__URL=postgres://tandem:geheim@db/tandem",
        b"SIP__TRANSPORT__LISTEN=192.0.2.1:5060",
        b"SIP__TRANSPORT__TCP__CONNECTIONS_MAX=100",
        b"MEDIA__PORT_MIN=20000",
        b"SNMP__TARGETS=[{name=\"nms\",address=\"192.0.2.1:162\",community=\"public\"}]",
        b"MAIL__PASSWORD=geheim",
        b"HTTP__LISTEN=127.0.0.1:8080",
    ];
    let mutator = Mutator::new(variables.map(<[u8]>::to_vec).to_vec(), SPICE).with_changes(1..=2);
    let (mut taken, mut refused) = (0, 0);
    soak::campaign("configuration by environment", SEED ^ 1, ENVIRONMENTS, |_, random| {
        let octets: Vec<u8> = mutator.mutated(random).into_iter().filter(|octet| *octet != 0).collect();
        let (name, value) = match octets.iter().position(|octet| *octet == b'=') {
            Some(at) => (octets[..at].to_vec(), octets[at + 1..].to_vec()),
            None => (octets, Vec::new()),
        };
        let variable = |octets: Vec<u8>| std::ffi::OsString::from_vec(octets);
        let output = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["config", "show"])
            .env_clear()
            .env("TANDEM_SIP__TRANSPORT__ADVERTISED", "192.0.2.9")
            .env(variable([b"TANDEM_".as_slice(), &name].concat()), variable(value))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!complaint.contains("panicked"), "{name:02x?}: {complaint}");
        if output.status.success() {
            taken += 1;
            assert!(toml::from_str::<Config>(&said).is_ok(), "what is shown can be read: {said}");
        } else {
            refused += 1;
            assert!(output.status.code().is_some() && !complaint.trim().is_empty(), "{:?}", output.status);
        }
    });
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}
