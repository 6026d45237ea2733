//! Certificates for servers on this machine: what a server is given, and for tests an authority that signs it.
//!
//! Each server of a test has, besides its plain port for our own questions, what the engine is to use: a port that speaks TLS only.

use std::path::PathBuf;

/// What a server shows and proves itself with, as PEM files that only their owner may read.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

#[cfg(feature = "certificates")]
pub use authority::Authority;

#[cfg(feature = "certificates")]
mod authority {
    use std::fs;
    use std::path::{Path, PathBuf};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};

    use super::Identity;
    use crate::cluster::write_private;

    /// An authority that was made up here, and that nobody else trusts.
    pub struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        /// A new one, with a key of its own.
        pub fn new() -> anyhow::Result<Self> {
            let mut parameters = CertificateParams::default();
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            Ok(Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?))
        }

        /// Its certificate in PEM form.
        pub fn pem(&self) -> String {
            self.0.pem()
        }

        /// Writes its certificate to a file.
        pub fn write(&self, file: PathBuf) -> anyhow::Result<PathBuf> {
            fs::write(&file, self.pem())?;
            Ok(file)
        }

        /// What a server on a loopback port of this machine needs, as files in `folder`.
        pub fn sign(&self, folder: &Path) -> anyhow::Result<Identity> {
            fs::create_dir_all(folder)?;
            let identity = Identity { certificate: folder.join("server.crt"), key: folder.join("server.key") };
            let key = KeyPair::generate()?;
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            let certificate = CertificateParams::new(names)?.signed_by(&key, &self.0)?;
            write_private(&identity.certificate, &certificate.pem())?;
            write_private(&identity.key, &key.serialize_pem())?;
            Ok(identity)
        }
    }
}
