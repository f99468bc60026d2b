//! The other end of the stream is the test, until the last of them, where it is passt itself.

use super::framing::{Inbox, prefix};
use super::*;
use crate::net::pair::MAX_FRAME;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

fn pair() -> (Passt, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    (Passt::on(one.into()), other)
}

fn receive(passt: &mut Passt) -> Result<Vec<u8>, Refusal> {
    let mut room = vec![0; MAX_FRAME];
    let (first, second) = room.split_at_mut(100);
    let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
    let len = passt.receive(&mut Header::default(), &slices)?;
    room.truncate(len);
    Ok(room)
}

fn send_frame(passt: &mut Passt, frame: &[u8]) -> Result<(), Refusal> {
    let mut frame = frame.to_vec();
    let middle = frame.len() / 2;
    let (first, second) = frame.split_at_mut(middle);
    let slices = [VolatileSlice::from(first), VolatileSlice::from(second)];
    passt.send(&Header::default(), &slices)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 256) as u8).collect()
}

fn framed(len: usize) -> Vec<u8> {
    [prefix(len).as_slice(), &frame(len)].concat()
}

#[test]
fn frames_come_however_the_stream_is_cut() {
    let lens = [1, 60, 1514, MAX_FRAME, 2, 65_534, 14];
    let stream: Vec<u8> = lens.iter().flat_map(|len| framed(*len)).collect();
    for step in [1, 3, 4, 5, 64, 4096, 100_000] {
        let mut inbox = Inbox::default();
        let mut left = stream.as_slice();
        let mut frames = Vec::new();
        while !left.is_empty() || inbox.is_ready() {
            while let Some(frame) = inbox.take().unwrap() {
                frames.push(frame.to_vec());
            }
            let room = inbox.room();
            assert!(!room.is_empty());
            let count = step.min(room.len()).min(left.len());
            room[..count].copy_from_slice(&left[..count]);
            left = &left[count..];
            inbox.advance(count);
        }
        assert_eq!(frames, lens.map(frame), "{step} bytes at a time");
    }
}

#[test]
fn many_frames_of_one_read_are_all_pending() {
    let (mut passt, mut other) = pair();
    other
        .write_all(&[framed(60), framed(61), framed(62), vec![0, 0]].concat())
        .unwrap();
    assert!(!passt.is_pending());
    assert_eq!(receive(&mut passt).unwrap(), frame(60));
    assert!(passt.is_pending());
    assert_eq!(receive(&mut passt).unwrap(), frame(61));
    assert_eq!(receive(&mut passt).unwrap(), frame(62));
    assert!(!passt.is_pending());
    assert!(matches!(receive(&mut passt), Err(Refusal::Busy)));
}

#[test]
fn what_can_be_no_frame_ends_the_link() {
    for len in [0, MAX_FRAME as u32 + 1, 0x8000_0000, u32::MAX] {
        let (mut passt, mut other) = pair();
        other.write_all(&len.to_be_bytes()).unwrap();
        let refused = receive(&mut passt);
        assert!(
            matches!(refused, Err(Refusal::Gone(_))),
            "{len}: {refused:?}"
        );
    }
    let (mut passt, mut other) = pair();
    other.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
    assert!(matches!(receive(&mut passt), Err(Refusal::Gone(_))));
}

#[test]
fn an_end_amid_a_frame_is_an_end() {
    let (mut passt, mut other) = pair();
    other.write_all(&framed(60)[..30]).unwrap();
    drop(other);
    assert!(matches!(receive(&mut passt), Err(Refusal::Gone(_))));
    assert!(matches!(
        send_frame(&mut passt, &[0; 60]),
        Err(Refusal::Gone(_))
    ));
}

#[test]
fn a_frame_that_is_taken_in_part_is_finished_before_the_next() {
    let (mut passt, mut other) = pair();
    let mut taken = 0;
    while passt.flush().is_ok() {
        match send_frame(&mut passt, &frame(60_000)) {
            Ok(()) => taken += 1,
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::Busy), "{refusal:?}");
                break;
            }
        }
    }
    assert!(matches!(
        send_frame(&mut passt, &frame(60)),
        Err(Refusal::Busy)
    ));
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        other.read_to_end(&mut bytes).unwrap();
        bytes
    });
    while matches!(passt.flush(), Err(Refusal::Busy)) {
        std::thread::yield_now();
    }
    while matches!(send_frame(&mut passt, &frame(61)), Err(Refusal::Busy)) {
        std::thread::yield_now();
    }
    while matches!(passt.flush(), Err(Refusal::Busy)) {
        std::thread::yield_now();
    }
    drop(passt);
    let expected = [framed(60_000).repeat(taken), framed(61)].concat();
    assert!(reader.join().unwrap() == expected, "{taken} frames and one");
}

#[test]
fn ports_are_told_as_passt_wants_them() {
    let publish = |address, protocol| Publish {
        address,
        host: 8080,
        guest: 80,
        protocol,
    };
    for (address, text) in [
        (None, "8080:80"),
        (Some(Ipv4Addr::LOCALHOST.into()), "127.0.0.1/8080:80"),
        (Some(Ipv6Addr::LOCALHOST.into()), "::1/8080:80"),
    ] {
        assert_eq!(publish(address, Protocol::Tcp).to_string(), text);
    }
}

/// A program that is started instead of passt.
fn instead(script: &str) -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("passt");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    (folder, Passt::options().program(program))
}

#[test]
fn a_program_that_is_not_there_is_an_error_with_a_hint() {
    let error = Passt::options()
        .program("/no/such/passt")
        .start()
        .unwrap_err();
    assert!(
        error.hint().unwrap().contains("apt install passt"),
        "{error}"
    );
}

#[test]
fn a_program_that_gives_up_is_quoted() {
    for (script, words) in [
        (
            "echo first >&2; echo 'It can not \x1b[1m' >&2; exit 3",
            "exit status: 3) and said: It can not [1m",
        ),
        ("exit 1", "exit status: 1) and said: nothing"),
        ("kill -9 $$", "signal: 9 (SIGKILL)) and said: nothing"),
    ] {
        let (_folder, options) = instead(script);
        let text = options.start().unwrap_err().to_string();
        assert!(text.contains(words), "{script}: {text}");
    }
}

#[test]
fn a_program_that_says_much_is_quoted_in_short() {
    let (_folder, options) = instead("yes 'too much' >&2; exit 1");
    let text = options.start().unwrap_err().to_string();
    assert!(text.contains("said: too") && text.len() < 300, "{text}");
}

#[test]
fn a_program_that_does_not_get_ready_is_ended_and_told() {
    let (folder, options) = instead("echo $$ >\"${0%/*}/pid\"; while :; do sleep 1; done");
    let error = options
        .patience(Duration::from_secs(1))
        .start()
        .unwrap_err();
    assert!(matches!(error, PasstError::Slow(_)), "{error}");
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "{pid}");
}

#[test]
fn what_a_program_leaves_in_the_background_is_not_waited_for() {
    let (folder, options) = instead("sleep 30 & echo $! >\"${0%/*}/pid\"; exit 0");
    options.start().unwrap();
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(Path::new("/proc").join(pid.trim()).exists(), "{pid}");
    let killed = std::process::Command::new("kill").arg(pid.trim()).status();
    assert!(killed.unwrap().success());
}

#[test]
fn a_port_that_is_taken_is_told_whatever_its_family_and_protocol() {
    let published = |address: Option<IpAddr>, host, protocol| {
        let publish = Publish {
            address,
            host,
            guest: 80,
            protocol,
        };
        let (_folder, options) = instead("exit 0");
        options.publish(publish).start()
    };
    for address in [
        Ipv4Addr::LOCALHOST.into(),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ] {
        let Ok(listener) = std::net::TcpListener::bind((address, 0)) else {
            eprintln!("skipped: a_port_that_is_taken: this host has no {address}");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let socket = std::net::UdpSocket::bind((address, port)).unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for address in [Some(address), None] {
                let error = published(address, port, protocol).unwrap_err();
                assert!(
                    error
                        .to_string()
                        .contains(&format!("{protocol} port {port} of")),
                    "{error}"
                );
                assert!(
                    error.hint().unwrap().contains("another program"),
                    "{error:?}"
                );
            }
        }
        drop((listener, socket));
        published(Some(address), port, Protocol::Tcp).unwrap();
        published(Some(address), port, Protocol::Udp).unwrap();
    }
}

#[test]
fn an_address_of_another_host_can_not_be_published() {
    let (_folder, options) = instead("exit 0");
    let publish = Publish {
        address: Some(Ipv4Addr::new(192, 0, 2, 77).into()),
        host: 18_080,
        guest: 80,
        protocol: Protocol::Tcp,
    };
    let error = options.publish(publish).start().unwrap_err();
    assert!(
        error.hint().unwrap().contains("address of this host"),
        "{error:?}"
    );
}

/// passt answers ARP for the gateway, and ends with its socket.
#[test]
fn passt_is_started_and_ended() {
    let mut passt = match Passt::options()
        .address(Ipv4Addr::new(10, 9, 8, 7).into())
        .start()
    {
        Ok(passt) => passt,
        Err(error) => return eprintln!("skipped: passt: {error}"),
    };
    // Who has any address that is not the guest's? It answers for all of them.
    let ours = [2, 0, 0, 0, 0, 1];
    let request = [
        [0xff; 6].as_slice(),
        &ours,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &ours,
        &[10, 9, 8, 7],
        &[0; 6],
        &[10, 9, 8, 1],
    ]
    .concat();
    send_frame(&mut passt, &request).unwrap();
    let answer = loop {
        let mut fds = [rustix::event::PollFd::new(
            &passt.socket,
            rustix::event::PollFlags::IN,
        )];
        let patience = rustix::time::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        assert_eq!(
            rustix::event::poll(&mut fds, Some(&patience)),
            Ok(1),
            "no answer"
        );
        match receive(&mut passt) {
            // There may be router advertisements before.
            Ok(frame) if frame.get(12..14) == Some(&[8, 6]) => break frame,
            Ok(_) | Err(Refusal::Busy) => {}
            Err(refusal) => panic!("{refusal:?}"),
        }
    };
    assert_eq!(answer[..6], ours);
    assert_eq!(answer[20..22], [0, 2], "an answer");
}
