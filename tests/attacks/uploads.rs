//! Uploads that are refused: the refusal reaches clients that write all before they read, as those of Python, Node and Java do,
//! and a proxy does not take the server for a broken one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bystander::Bystander;
use crate::harness::PATIENCE;
use crate::harness::request::get;
use crate::harness::server::{Driver, Setup};
use crate::harness::shared::on_both_drivers;
use crate::proxy::proxy_of;
use crate::vitals::Vitals;

/// What Java saw no answer to.
const UPLOAD_BYTES: usize = 20 * 1024 * 1024;

on_both_drivers!(std::convert::identity =>
    clients_of_all_kinds_see_the_refusal,
    a_proxy_passes_refusals_on_and_goes_on,
    a_hundred_uploads_at_a_time_harm_nobody,
);

fn client_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/clients").join(name)
}

fn clients_of_all_kinds_see_the_refusal(driver: &Driver) {
    let server = Setup::new().driver(*driver).start();
    let target = format!("http://{}/todos", server.address);
    let folder = server.setup().folder();
    let body = folder.join("body");
    std::fs::write(&body, vec![0; UPLOAD_BYTES]).expect("a file can be written");
    let body_of_curl = format!("@{}", body.display());
    let length = UPLOAD_BYTES.to_string();
    let curl = ["-sS", "-o", "/dev/null", "-w", "%{http_code}\\n", "-H", "Content-Type: application/json"];
    let (java, python, node) = (client_file("Upload.java"), client_file("upload.py"), client_file("upload.js"));
    let text = |path: &Path| path.to_str().expect("a path of plain text").to_owned();
    let of_curl = |fields: &[&str]| {
        let last = ["--data-binary", &body_of_curl, &target];
        ("curl", curl.iter().chain(fields).chain(&last).map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    };
    let runs = [
        of_curl(&[]),
        of_curl(&["-H", "Expect:"]),
        of_curl(&["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]),
        ("python3", vec![text(&python), target.clone(), length.clone()]),
        ("node", vec![text(&node), target.clone(), length.clone()]),
        ("java", vec![text(&java), target.clone(), length]),
    ];
    for (program, arguments) in runs {
        let mut command = Command::new(program);
        command.args(&arguments).current_dir(folder);
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs it"));
        let statuses = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!statuses.is_empty() && output.status.success(), "{program} {arguments:?}: {statuses}{complaints}");
        assert!(statuses.lines().all(|status| status == "413"), "{program}: {statuses}{complaints}");
    }
    server.connect().assert_goes_on();
}

/// The status of the answer to these bytes.
fn status_through(socket: &Path, head: &str, body: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    stream.set_write_timeout(Some(PATIENCE)).expect("a deadline can be set");
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the proxy takes the request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the proxy answers");
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {text}")).to_owned()
}

fn a_proxy_passes_refusals_on_and_goes_on(driver: &Driver) {
    let setup = Setup::new().driver(*driver);
    let (first, second) = (setup.start(), Setup::new().driver(*driver).start());
    let (_proxy, socket) = proxy_of(&setup, &[first.address, second.address], "");
    let list = "GET /todos HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let upload = |length: usize| {
        let fields = "Content-Type: application/json\r\nConnection: close";
        format!("POST /todos HTTP/1.1\r\nHost: a\r\n{fields}\r\nContent-Length: {length}\r\n\r\n")
    };
    for length in [UPLOAD_BYTES / 4, UPLOAD_BYTES] {
        for _ in 0..4 {
            assert_eq!(status_through(&socket, &upload(length), &vec![0; length]), "413");
        }
        for _ in 0..4 {
            assert_eq!(status_through(&socket, list, b""), "200");
        }
    }
}

fn a_hundred_uploads_at_a_time_harm_nobody(driver: &Driver) {
    const CLIENTS: usize = 100;
    const UPLOADS: usize = 3;
    let server = Setup::new().driver(*driver).start();
    server.connect().call(&get("/todos")).expect(200);
    let before = Vitals::at_rest(&server);
    let bystander = Bystander::of(&server);
    let fields = "Content-Type: application/json";
    let mut upload =
        format!("POST /todos HTTP/1.1\r\nHost: a\r\n{fields}\r\nContent-Length: {}\r\n\r\n", UPLOAD_BYTES / 4)
            .into_bytes();
    upload.resize(upload.len() + UPLOAD_BYTES / 4, b'x');
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..UPLOADS {
                    let mut client = server.connect();
                    client.send(&upload);
                    client.answer().problem(413);
                    client.assert_ended();
                }
            });
        }
    });
    bystander.assert_served();
    before.assert_back(&server);
}
