//! Servers that have to show who they are, and those that can't.

use super::failing::why;
use super::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One of the files that `certificates/make` makes.
fn file(name: &str) -> PathBuf {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/block/http/tests/certificates"
    );
    Path::new(folder).join(name)
}

/// The server's side of TLS, with the certificate and key of a file.
fn tls(name: &str, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let pem = fs::read(file(name)).unwrap();
    let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let connection = ServerConnection::new(Arc::new(config)).unwrap();
    StreamOwned::new(connection, stream)
}

/// A server with the certificate of a file.
fn server(name: &'static str, behave: impl FnMut(&Asked) -> Act + Send + 'static) -> Server {
    changing(&Arc::new(Mutex::new(name)), behave)
}

/// A server that has, on each new connection, the certificate of the file that is named then.
fn changing(
    name: &Arc<Mutex<&'static str>>,
    behave: impl FnMut(&Asked) -> Act + Send + 'static,
) -> Server {
    let name = Arc::clone(name);
    let mut server = Server::over(move |stream| tls(*name.lock().unwrap(), stream), behave);
    server.url = secure(&server.url);
    server
}

fn good(name: &'static str, served: &Served) -> Server {
    let served = served.clone();
    server(name, move |asked| Act::Send(served.answer(asked)))
}

fn secure(url: &str) -> String {
    url.replace("http:", "https:")
}

fn options(ca: &str) -> Options {
    HttpDisk::options()
        .open_patience(SHORT)
        .patience(SHORT)
        .ca(file(ca))
}

/// The reason why there is no disk, which has to be there in time.
fn refused(options: &Options, url: &str) -> String {
    let start = Instant::now();
    let error = options.open(url).unwrap_err();
    assert!(
        start.elapsed() < 2 * SHORT,
        "{error}: {:?}",
        start.elapsed()
    );
    why(&error)
}

#[test]
fn a_server_with_a_certificate_from_the_authority_has_the_bytes_of_the_file() {
    let served = Served::new(LEN);
    let server = good("loopback.pem", &served);

    let disk = options("ca.pem").open(&server.url).unwrap();

    check(&disk, &served, 0, LEN);
}

#[test]
fn a_certificate_signed_by_itself_can_be_the_authority() {
    let served = Served::new(LEN);
    let server = good("itself.pem", &served);
    let disk = options("itself.pem").open(&server.url).unwrap();
    check(&disk, &served, SECOND, 4096);
}

#[test]
fn of_several_authorities_one_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let both = folder.path().join("both.pem");
    let pem = ["itself.pem", "ca.pem"].map(|name| fs::read(file(name)).unwrap());
    fs::write(&both, pem.concat()).unwrap();
    for name in ["itself.pem", "loopback.pem"] {
        let served = Served::new(LEN);
        let server = good(name, &served);
        let disk = options("ca.pem").ca(&both).open(&server.url).unwrap();
        check(&disk, &served, 0, 512);
    }
}

#[test]
fn a_server_that_can_not_show_who_it_is_is_refused_unasked() {
    for (certificate, words) in [
        ("stranger.pem", "not from an authority that is trusted"),
        ("itself.pem", "not from an authority that is trusted"),
        ("elsewhere.pem", "not valid for name \"127.0.0.1\""),
        ("expired.pem", "expired"),
    ] {
        let server = server(certificate, |asked| panic!("was asked: {asked:?}"));
        let why = refused(&options("ca.pem"), &server.url);
        assert!(why.contains(words), "{certificate}: {why}");
    }
}

#[test]
fn an_authority_that_is_not_named_is_not_trusted_and_the_hint_says_how_it_is() {
    let server = server("loopback.pem", |asked| panic!("was asked: {asked:?}"));
    let options = HttpDisk::options().open_patience(SHORT);
    let error = options.open(&server.url).unwrap_err();
    assert!(why(&error).contains("not from an authority"), "{error}");
    assert!(error.hint().unwrap().contains("ca=FILE"));
}

/// The address of something that is no server, but does this with each connection.
fn listening(mut behave: impl FnMut(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/disk", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            behave(stream.unwrap());
        }
    });
    url
}

#[test]
fn who_speaks_plainly_has_no_connection_with_who_does_not() {
    let plain = listening(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let why = refused(&options("ca.pem"), &plain);
    assert!(why.contains("does not speak TLS"), "{why}");

    let tls = good("loopback.pem", &Served::new(LEN));
    let url = tls.url.replace("https:", "http:");
    let why = refused(&HttpDisk::options().open_patience(SHORT), &url);
    assert!(why.contains("no whole answer: "), "{why}");
}

#[test]
fn a_handshake_that_does_not_end_is_given_up_in_time() {
    let closed = listening(drop);
    let begun = listening(|mut stream| {
        let _ = stream.read(&mut [0; 4096]);
        // A record that would go on.
        let _ = stream.write_all(b"\x16\x03\x03\x01\x00\x02");
    });
    let mut kept = Vec::new();
    let silent = listening(move |stream| kept.push(stream));
    for (url, words) in [
        (closed, "no whole answer: "),
        (begun, "no whole answer: "),
        (silent, "timeout"),
    ] {
        let why = refused(&options("ca.pem"), &url);
        assert!(why.contains(words), "{words}: {why}");
    }
}

#[test]
fn a_server_that_becomes_another_one_fails_reads_until_it_is_back() {
    let served = Served::new(LEN);
    let file = served.clone();
    let closing = move |asked: &Asked| Act::Close(file.answer(asked).bytes());
    let names = Arc::new(Mutex::new("loopback.pem"));
    let server = changing(&names, closing);
    let disk = options("ca.pem").open(&server.url).unwrap();

    *names.lock().unwrap() = "stranger.pem";

    let error = read(&disk, SECOND, 512).unwrap_err().to_string();
    assert!(error.contains("not from an authority"), "{error}");
    check(&disk, &served, 0, 512);
    *names.lock().unwrap() = "loopback.pem";
    check(&disk, &served, SECOND, 512);
}

#[test]
fn no_redirect_leaves_tls() {
    let plain = Server::good(&Served::new(LEN));
    let to = plain.url.clone();
    let server = server("loopback.pem", move |_| {
        Act::Send(Answer::status("302 Found").and("Location", Some(&to)))
    });
    let why = refused(&options("ca.pem"), &server.url);
    assert!(why.contains("https only"), "{why}");
    assert_eq!(plain.gets(), 0);
}

#[test]
fn a_file_that_names_no_authority_is_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let armoured = "-----BEGIN CERTIFICATE-----\n";
    let end = "-----END CERTIFICATE-----\n";
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let good = fs::read_to_string(file("ca.pem")).unwrap();
    fs::write(path("empty"), "").unwrap();
    fs::write(path("text"), "not a certificate\n").unwrap();
    fs::write(path("key"), key).unwrap();
    fs::write(path("bytes"), [0xff; 4096]).unwrap();
    fs::write(path("no end"), armoured).unwrap();
    fs::write(path("no base64"), format!("{armoured}!!!\n{end}")).unwrap();
    fs::write(path("no DER"), format!("{good}{armoured}AAAA\n{end}")).unwrap();
    let large = fs::File::create(path("large")).unwrap();
    large.set_len(1 << 40).unwrap();
    // Nobody writes to it.
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), mode).unwrap();
    for (ca, words) in [
        ("missing", "cannot read certificates"),
        (".", "cannot read certificates"),
        ("large", "cannot read certificates"),
        ("empty", "there is no certificate"),
        ("fifo", "there is no certificate"),
        ("text", "there is no certificate"),
        ("key", "there is no certificate"),
        ("bytes", "there is no certificate"),
        ("no end", "no sound PEM"),
        ("no base64", "no sound PEM"),
        ("no DER", "certificate 2 is no sound X.509"),
    ] {
        let options = HttpDisk::options().ca(path(ca));
        // Nobody listens there.
        let why = refused(&options, "https://127.0.0.1:1/disk");
        assert!(why.contains(words), "{ca}: {why}");
        assert!(why.contains(&format!("{:?}", path(ca))), "{ca}: {why}");
    }
}

#[test]
fn an_authority_for_a_server_without_tls_is_refused() {
    let server = Server::good(&Served::new(LEN));
    let why = refused(&options("ca.pem"), &server.url);
    assert!(why.contains("does not begin with https://"), "{why}");
    assert_eq!(server.gets(), 0);
}
