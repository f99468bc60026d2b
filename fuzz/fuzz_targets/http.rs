//! A web server that has a disk, and answers as it likes.
//!
//! The input is a plan for each request: which of two versions of the file the server has by then,
//! what it changes of a right answer, and whether the connection goes on. When there are no
//! plans left, it is a good server. In between, the disk is read.
//!
//! Besides not crashing and taking no more than its bounds: what is read is right, or an error; and
//! it is always of the same version. That can be asked of servers that do not lie: what
//! they say of the bytes may be missing, doubled, cut and contradicted, but the validators and the
//! range that they send are those of what follows. Of those that lie (bytes that are written over,
//! or that make up for missing ones), it is only asked that the disk survives them.

#![no_main]

use hype_fuzz::Input;
use hype_fuzz::web::{Answer, Serve, Then, Web};
use libfuzzer_sys::fuzz_target;
use std::collections::VecDeque;
use virtio::block::{BlockStorage, HttpDisk};
use virtio::testing::http_disk::{BLOCK, open};
use vm_memory::VolatileSlice;

/// How long the file may be: less than a block, whole blocks, and more.
const SIZES: [usize; 8] = [3000, 1024, 2048, 512, 4096, 5000, 1025, 100];

/// What a server may say besides.
const HEADERS: [&str; 16] = [
    "Content-Encoding: gzip",
    "Content-Encoding: identity",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Length: 0",
    "Content-Length: 18446744073709551615",
    "Content-Length: -1",
    "Content-Range: bytes 0-1023/18446744073709551615",
    "Content-Range: bytes */3000",
    "Connection: close",
    "Location: /other",
    "Location: http://elsewhere/disk",
    "Location: ftp://elsewhere/disk",
    "Accept-Ranges: none",
    "Trailer: ETag",
    "X: \u{ff}\u{fe}",
];

const STATUSES: [&str; 16] = [
    "HTTP/1.1 200 OK",
    "HTTP/1.1 206 Partial Content",
    "HTTP/1.0 206 Partial Content",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 302 Found",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 307 Temporary Redirect",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 408 Request Timeout",
    "HTTP/1.1 412 Precondition Failed",
    "HTTP/1.1 416 Range Not Satisfiable",
    "HTTP/1.1 429 Too Many Requests",
    "HTTP/1.1 500 Internal Server Error",
    "HTTP/1.1 503 Service Unavailable",
    "HTTP/1.1 999 Hm",
    "HTTP/3 0",
];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let choices = input.byte();
    let sizes = [input.one_of(&SIZES), input.one_of(&SIZES)];
    // A change that the size does not tell is the hard case.
    let sizes = if choices & 1 == 0 {
        [sizes[0]; 2]
    } else {
        sizes
    };
    let plans = (0..choices >> 1 & 7)
        .map(|_| Plan::new(&mut input))
        .collect();
    let web = Web::new(Server {
        versions: [0, 1].map(|version| file(version, sizes[version])),
        current: 0,
        plans,
        lies: false,
    });
    let Ok(disk) = open(&HttpDisk::options(), "http://server/disk", |config| {
        web.agent(config)
    }) else {
        return;
    };

    let mut possible = [true; 2];
    while !input.is_empty() {
        let size = disk.properties().size;
        let offset = match input.byte() {
            byte @ 0..240 => u64::from(byte) * 37 % size,
            _ => input.number(8),
        };
        let mut bytes = [0; 3 * BLOCK as usize];
        let len = usize::from(input.byte()) * 12 + 1;
        let (one, two) = bytes[..len].split_at_mut(len / 3);
        let buffers = [VolatileSlice::from(one), VolatileSlice::from(two)];
        let read = disk.read_vectored_at(&buffers, offset);
        if input.byte().is_multiple_of(2) {
            web.server().plans.push_back(Plan::new(&mut input));
        }
        let (Ok(count), server) = (read, web.server()) else {
            continue;
        };
        assert!(count <= len);
        if server.lies {
            continue;
        }
        for (possible, file) in possible.iter_mut().zip(&server.versions) {
            let right = usize::try_from(offset).ok().and_then(|at| file.get(at..));
            let right = right.and_then(|rest| rest.get(..count));
            *possible &= count == 0 || right == Some(&bytes[..count]);
        }
        assert_ne!(
            possible, [false; 2],
            "bytes that are wrong, or of two versions"
        );
    }
});

/// The file: no byte of it means anything in HTTP, and each byte is another one in the other
/// version.
fn file(version: usize, size: usize) -> Vec<u8> {
    let byte = |at: usize| 0x80 | ((at ^ at >> 7 ^ at >> 10) as u8 & 0x3f) | (version as u8) << 6;
    (0..size).map(byte).collect()
}

struct Server {
    versions: [Vec<u8>; 2],
    current: usize,
    plans: VecDeque<Plan>,
    /// Whether an answer was not true.
    lies: bool,
}

/// What is done to an answer.
struct Plan {
    version: usize,
    ignores_conditions: bool,
    changes: Vec<Change>,
    then: Then,
}

enum Change {
    Nothing,
    Status(&'static str),
    /// Leaves a header out.
    Without(usize),
    Twice(usize),
    With(&'static str),
    /// Another number in a header, in which it is well visible.
    Number(usize, u64),
    /// Cuts the body, or adds to it, without saying so.
    Short(usize),
    Long(usize),
    /// Sends it in chunks of this size.
    Chunks(usize),
    /// Sends another header before the answer.
    Before(&'static str),
    /// Writes over what is sent: after that, it may say anything.
    Bytes(usize, Vec<u8>),
}

impl Plan {
    fn new(input: &mut Input<'_>) -> Self {
        let choices = input.byte();
        Plan {
            version: usize::from(choices & 7 == 7),
            ignores_conditions: choices & 8 != 0,
            changes: (0..choices >> 4 & 3).map(|_| Change::new(input)).collect(),
            then: match choices >> 6 {
                0 | 1 => Then::Wait,
                2 => Then::Close,
                _ => Then::Endless(input.one_of(b"\xffa\n0 ")),
            },
        }
    }
}

impl Plan {
    /// Whether bytes may be other ones than the answer says: written over, or made up for those
    /// that are missing.
    fn lies(&self) -> bool {
        let is_cut = |change: &Change| matches!(change, Change::Short(_));
        let is_more = |change: &Change| matches!(change, Change::Long(_));
        let is_over = |change: &Change| matches!(change, Change::Bytes(..));
        let goes_on = matches!(self.then, Then::Endless(_)) && !self.changes.is_empty();
        let mut changes = self.changes.iter();
        let is_filled = changes.any(is_cut) && changes.any(is_more);
        goes_on || is_filled || self.changes.iter().any(is_over)
    }
}

impl Change {
    fn new(input: &mut Input<'_>) -> Self {
        match input.byte() % 16 {
            0..3 => Change::Status(input.one_of(&STATUSES)),
            3..5 => Change::Without(input.byte().into()),
            5 => Change::Twice(input.byte().into()),
            6..9 => Change::With(input.one_of(&HEADERS)),
            9 => Change::Number(input.byte().into(), input.number(2)),
            10 => Change::Short(input.number(2) as usize),
            11 => Change::Long(input.number(2) as usize % 3000),
            12 => Change::Chunks(usize::from(input.byte()) + 1),
            13 => Change::Before(input.one_of(&STATUSES)),
            14 => {
                let count = usize::from(input.byte() % 16);
                Change::Bytes(input.number(2) as usize % 400, input.bytes(count).to_vec())
            }
            _ => Change::Nothing,
        }
    }
}

impl Serve for Server {
    fn answer(&mut self, request: &str) -> Answer {
        let plan = self.plans.pop_front();
        // Once there is a new version, the old one is gone.
        self.current |= plan.as_ref().map_or(0, |plan| plan.version);
        let ignores_conditions = plan.as_ref().is_some_and(|plan| plan.ignores_conditions);
        let mut draft = self.right(request, ignores_conditions);
        let Some(plan) = plan else {
            return Answer {
                bytes: draft.bytes(),
                then: Then::Wait,
            };
        };
        self.lies |= plan.lies();
        let mut over = Vec::new();
        for change in plan.changes {
            match change {
                Change::Bytes(at, bytes) => over.push((at, bytes)),
                other => draft.change(other),
            }
        }
        let mut bytes = draft.bytes();
        for (at, new) in over {
            let place = bytes.iter_mut().skip(at);
            place.zip(new).for_each(|(byte, new)| *byte = new);
        }
        Answer {
            bytes,
            then: plan.then,
        }
    }
}

impl Server {
    /// What a good server would say.
    fn right(&self, request: &str, ignores_conditions: bool) -> Draft {
        let file = &self.versions[self.current];
        let (etag, modified) = [
            ("\"the first one\"", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("\"another file\"", "Mon, 07 Nov 1994 08:49:37 GMT"),
        ][self.current];
        let empty = |status| Draft {
            status,
            headers: vec!["Content-Length: 0".to_owned()],
            ..Draft::default()
        };
        let header = |name: &str| {
            let mut lines = request.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value)
        };
        let differs = |name, now| header(name).is_some_and(|asked| asked != now);
        let changed = differs("if-match", etag) || differs("if-unmodified-since", modified);
        if changed && !ignores_conditions {
            return empty("HTTP/1.1 412 Precondition Failed");
        }
        let validators = [
            format!("ETag: {etag}"),
            format!("Last-Modified: {modified}"),
        ];
        let mut draft = Draft {
            status: "HTTP/1.1 200 OK",
            headers: vec![format!("Content-Length: {}", file.len())],
            body: Vec::new(),
            before: None,
        };
        draft.headers.extend(validators);
        if request.starts_with("HEAD ") {
            return draft;
        }
        let range = header("range").and_then(|range| range.strip_prefix("bytes="));
        let range = range.and_then(|range| range.split_once('-'));
        let Some((first, last)) = range else {
            draft.body.clone_from(file);
            return draft;
        };
        let number = |text: &str| text.parse::<usize>().expect("a range of numbers");
        let (first, last) = (number(first), number(last).min(file.len() - 1));
        if first > last {
            return empty("HTTP/1.1 416 Range Not Satisfiable");
        }
        draft.body = file[first..=last].to_vec();
        draft.status = "HTTP/1.1 206 Partial Content";
        draft.headers[0] = format!("Content-Length: {}", last + 1 - first);
        draft.headers.push(format!(
            "Content-Range: bytes {first}-{last}/{}",
            file.len()
        ));
        draft
    }
}

/// An answer that can be changed.
#[derive(Default)]
struct Draft {
    before: Option<&'static str>,
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Draft {
    fn change(&mut self, change: Change) {
        let count = self.headers.len().max(1);
        match change {
            Change::Nothing | Change::Bytes(..) => {}
            Change::Status(status) => self.status = status,
            Change::Without(which) => {
                if !self.headers.is_empty() {
                    self.headers.remove(which % count);
                }
            }
            Change::Twice(which) => self
                .headers
                .extend(self.headers.get(which % count).cloned()),
            Change::With(header) => self.headers.push(header.to_owned()),
            Change::Number(which, number) => {
                if let Some(header) = self.headers.get_mut(which % count)
                    && header.starts_with("Content-")
                    && let Some(at) = header.rfind(|byte: char| !byte.is_ascii_digit())
                {
                    header.truncate(at + 1);
                    header.push_str(&number.to_string());
                }
            }
            Change::Short(len) => self.body.truncate(len),
            Change::Long(len) => self.body.extend(std::iter::repeat_n(0xee, len)),
            Change::Chunks(size) => {
                self.headers
                    .retain(|header| !header.starts_with("Content-L"));
                self.headers.push("Transfer-Encoding: chunked".to_owned());
                let mut chunks = Vec::new();
                for chunk in self.body.chunks(size) {
                    chunks.extend(format!("{:x}\r\n", chunk.len()).bytes());
                    chunks.extend(chunk);
                    chunks.extend(b"\r\n");
                }
                chunks.extend(b"0\r\n\r\n");
                self.body = chunks;
            }
            Change::Before(status) => self.before = Some(status),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut text = String::new();
        if let Some(before) = self.before {
            text += &format!("{before}\r\n\r\n");
        }
        text += &format!("{}\r\n", self.status);
        for header in &self.headers {
            text += &format!("{header}\r\n");
        }
        let mut bytes = format!("{text}\r\n").into_bytes();
        bytes.extend(&self.body);
        bytes
    }
}
