//! Kernels that come from a server, and servers that do not behave.

use crate::command::{FAILURE, POWER_OFF, end, finish, hype, refused};
use crate::guest::{Code, kvm};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;

/// A server on this machine that sends each client `answer`. Returns its address.
fn serve(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            read_request(&mut client);
            // One that has seen enough hangs up.
            let _ = client.write_all(&answer);
        }
    });
    format!("http://{address}/bzImage")
}

fn read_request(client: &mut TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(byte[0]);
    }
}

fn answer(status: &str, header: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\n{header}\r\nConnection: close\r\n\r\n").into_bytes();
    answer.extend(body);
    answer
}

#[test]
fn a_kernel_is_fetched_and_run() {
    if !kvm("a_kernel_is_fetched_and_run") {
        return;
    }
    let image = Code::new().print("hello\n").power_off().image();
    let url = serve(answer(
        "200 OK",
        &format!("Content-Length: {}", image.len()),
        &image,
    ));

    let ended = finish(&mut hype([
        "-kernel", &url, "-mem", "4", "-serial", "stdio",
    ]));

    assert_eq!(ended.code(), Some(POWER_OFF), "{ended:?}");
    assert_eq!(ended.stdout, "hello\n");
    assert_eq!(
        ended.stderr, "",
        "nothing is drawn where there is no terminal"
    );
}

#[test]
fn a_server_that_has_nothing_is_an_error_with_option_url_and_reason() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for (url, word) in [
        (
            serve(answer("404 Not Found", "Content-Length: 0", b"")),
            "404",
        ),
        (serve(answer("500 Oops", "Content-Length: 0", b"")), "500"),
        (
            serve(answer("200 OK", "Content-Length: 100", b"short")),
            "disconnected",
        ),
        (
            serve(answer("200 OK", "Content-Length: 4", b"text")),
            "format not known",
        ),
        (serve(answer("200 OK", "Content-Length: 0", b"")), "empty"),
        (serve(b"garbage\r\n\r\n".to_vec()), "http"),
        (serve(Vec::new()), "http"),
        (format!("http://{gone}/x"), "refused"),
        ("ftp://host/x".into(), "ftp is not known"),
        ("http://".into(), "http"),
    ] {
        refused(
            &mut hype(["-kernel", &url]),
            FAILURE,
            &["-kernel ", &url, word],
        );
    }
}

#[test]
fn a_redirect_leads_neither_in_circles_nor_to_files() {
    for location in ["/again", "file:///etc/passwd"] {
        let url = serve(answer(
            "302 Found",
            &format!("Location: {location}\r\nContent-Length: 0"),
            b"",
        ));

        refused(&mut hype(["-initrd", &url]), FAILURE, &["-initrd ", &url]);
    }
}

#[test]
fn a_fetch_can_be_interrupted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/bzImage", listener.local_addr().unwrap());
    let mut command = hype(["-kernel", &url]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It is connected, and gets no answer.
    let _client = listener.accept().unwrap();

    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();

    assert_eq!(end(child).status.signal(), Some(Signal::TERM.as_raw()));
}
