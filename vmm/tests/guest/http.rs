//! A disk on a web server that is not a good one: what the guest reads is right all the same, until
//! the file changes.

use super::*;
use crate::support::{Plan, read_to_string};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, thread};
use vmm::virtio::block::{Block, HttpDisk};

const LEN: usize = 12 << 20;

/// What the file has at a place: each sector is another one.
fn expected(offset: usize, len: usize) -> Vec<u8> {
    let bytes = (offset..offset + len).map(|at| (at ^ at >> 9 ^ at >> 17) as u8);
    bytes.collect()
}

/// Whether the file is another one by now. Both ends of a test are in one process.
static CHANGED: AtomicBool = AtomicBool::new(false);
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

/// What a header line says about the part that is asked for.
fn range(line: &str) -> Option<(usize, usize)> {
    let line = line.to_ascii_lowercase();
    let (first, last) = line.strip_prefix("range: bytes=")?.split_once('-')?;
    let last: usize = last.parse().ok()?;
    Some((first.parse().ok()?, last.min(LEN - 1)))
}

/// Answers requests of one connection: most of them.
fn serve(stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut stream = stream;
    loop {
        let mut request = Vec::new();
        for line in lines.by_ref() {
            match line? {
                line if line.is_empty() => break,
                line => request.push(line),
            }
        }
        if request.is_empty() {
            return Ok(());
        }
        let number = REQUESTS.fetch_add(1, Ordering::SeqCst);
        let tag = CHANGED.load(Ordering::SeqCst);
        let range = request.iter().find_map(|line| range(line));
        let Some((first, last)) = range else {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LEN}\r\n\r\n")?;
            continue;
        };
        if number % 4 == 3 {
            write!(stream, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        }
        let len: usize = last + 1 - first;
        write!(
            stream,
            "HTTP/1.1 206 Partial Content\r\nETag: \"{tag}\"\r\nContent-Length: {len}\r\n\
             Content-Range: bytes {first}-{last}/{LEN}\r\n\r\n"
        )?;
        let body = expected(first, len);
        if number % 5 == 4 {
            return stream.write_all(&body[..len / 2]);
        }
        stream.write_all(&body)?;
    }
}

guest_test! {
    a_disk_on_a_web_server_is_right_until_the_file_changes,
    config: |plan: &mut Plan| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/disk", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || serve(stream.unwrap()));
            }
        });
        // Emulated hosts are slow.
        let disk = HttpDisk::options().patience(Duration::from_secs(30)).open(&url).unwrap();
        plan.config.devices.push(Block::new(disk).into());
    },
    guest: || {
        assert_eq!(read_to_string("/sys/block/vda/ro").trim(), "1");
        assert_eq!(read_to_string("/sys/block/vda/size").trim(), (LEN / 512).to_string());
        let disk = File::open("/dev/vda").unwrap();
        let mut bytes = vec![0; 1 << 20];
        for offset in (0..LEN).step_by(bytes.len()) {
            disk.read_exact_at(&mut bytes, offset as u64).unwrap();
            assert!(bytes == expected(offset, bytes.len()), "{offset}");
        }
        println!("all of it");
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        // The start of the file is not among the last blocks that were read: it is asked for.
        let error = disk.read_exact_at(&mut bytes, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
        // And the end is, but nobody gets it any more.
        let last = (LEN - bytes.len()) as u64;
        assert!(disk.read_exact_at(&mut bytes, last).is_err());
    },
    host: |host| {
        host.expect("all of it");
        assert!(REQUESTS.load(Ordering::SeqCst) > LEN / (256 << 10));
        CHANGED.store(true, Ordering::SeqCst);
        host.type_bytes(b"changed\n");
    },
    ends: Outcome::Shutdown,
}
