//! The file that says whose word is taken for who a server is.

use super::Failure;
use rustix::fs::{Mode, OFlags, open};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use ureq::tls::{PemItem, RootCerts, parse_pem};

/// How large the file may be: ten times what a distribution trusts.
const LIMIT: u64 = 4 << 20;

/// Reads the certificates in a file, of which there has to be one and each has to be sound: the HTTP
/// library would leave out a bad one without a word. What is no certificate is passed over.
pub(super) fn read(ca: &Path) -> Result<RootCerts, Failure> {
    let bad = |why: String| Failure::BadAuthorities {
        ca: ca.to_owned(),
        why,
    };
    let pem = read_file(ca).map_err(|source| Failure::Authorities {
        ca: ca.to_owned(),
        source,
    })?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        let item = item.map_err(|_| bad("it is no sound PEM".to_owned()))?;
        if let PemItem::Certificate(certificate) = item {
            let number = certificates.len() + 1;
            RootCertStore::empty()
                .add(CertificateDer::from(certificate.der()))
                .map_err(|_| bad(format!("its certificate {number} is no sound X.509")))?;
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(bad("there is no certificate (PEM) in it".to_owned())),
        false => Ok(RootCerts::from(certificates)),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A FIFO that nobody writes to has nothing in it, and is not waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(open(path, flags, Mode::empty())?);
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LIMIT {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {LIMIT} bytes"),
        )),
        false => Ok(bytes),
    }
}
