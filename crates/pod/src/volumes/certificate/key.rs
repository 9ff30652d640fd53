//! A pod's private key, made on this node, and the request that shows that it is there.

use std::fmt;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PublicKeyData,
};

/// A key whose certificate is asked for.
pub(super) struct Key {
    /// PKCS#8 (RFC 5958) as PEM: what the pod reads.
    pub(super) pem: String,
    /// The bits of the public key (RFC 5280, 4.1.2.7): what the certificate has to have, too.
    pub(super) public: Vec<u8>,
}

/// Says nothing of the key: it would be in a log.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").finish_non_exhaustive()
    }
}

/// Makes a key of this type (`keyType`), and a PKCS#10 request (RFC 2986) in DER that is signed with it and says nothing else.
/// Some milliseconds of work.
///
/// # Errors
///
/// The type is not to be had here, or there are no random numbers.
pub(super) fn make(kind: &str) -> Result<(Key, Vec<u8>), String> {
    let algorithm = match kind {
        "ECDSAP256" => &PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &PKCS_ECDSA_P384_SHA384,
        "ED25519" => &PKCS_ED25519,
        other => {
            return Err(format!(
                "keyType {other} is not supported by this node: it makes ECDSAP256, ECDSAP384 and ED25519"
            ));
        }
    };
    let pair = KeyPair::generate_for(algorithm).map_err(|error| format!("make a key: {error}"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request =
        params.serialize_request(&pair).map_err(|error| format!("sign a request: {error}"))?;
    let pkcs8 = plain(pair.serialized_der());
    let key =
        Key { pem: super::chain::pem("PRIVATE KEY", pkcs8), public: pair.der_bytes().to_vec() };
    Ok((key, request.der().to_vec()))
}

/// An Ed25519 key in the first version of PKCS#8 (RFC 8410, 7), which everybody reads. What is made here is the second (with the
/// public key), which OpenSSL refuses. All others stay as they are.
fn plain(pkcs8: &[u8]) -> Vec<u8> {
    /// Up to the 32 bytes of the key: the whole, its version 0, the algorithm 1.3.101.112, two octet strings.
    const FIRST: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
    /// As far as both versions are the same.
    const SAME: std::ops::Range<usize> = 5..16;
    match (pkcs8.get(SAME), pkcs8.get(16..48)) {
        (Some(head), Some(seed)) if FIRST.get(SAME) == Some(head) => [&FIRST, seed].concat(),
        _ => pkcs8.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::SigningKey;
    use ring::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
        VerificationAlgorithm,
    };
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    use super::*;

    #[test]
    fn a_request_is_signed_with_the_key_that_the_pod_reads_and_says_nothing_else() {
        let types: [(&str, &dyn VerificationAlgorithm); 3] = [
            ("ECDSAP256", &ECDSA_P256_SHA256_ASN1),
            ("ECDSAP384", &ECDSA_P384_SHA384_ASN1),
            ("ED25519", &ED25519),
        ];
        for (kind, algorithm) in types {
            let (key, request) = make(kind).unwrap();
            let (rest, request) = X509CertificationRequest::from_der(&request).unwrap();
            assert!(rest.is_empty(), "{kind}");
            let info = &request.certification_request_info;
            let signature = request.signature_value.data;
            UnparsedPublicKey::new(algorithm, &key.public).verify(info.raw, &signature).unwrap();
            assert_eq!(info.subject.iter().count() + info.attributes().len(), 0, "{kind}");
            assert_eq!(info.subject_pki.subject_public_key.data.as_ref(), key.public, "{kind}");
            assert!(key.pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{kind}");
            let read = KeyPair::from_pem(&key.pem).unwrap();
            assert_eq!(read.der_bytes(), key.public, "{kind}");
            read.sign(b"usable").unwrap();
            // Version 0, after the heads of the sequence and of the integer.
            let head = if kind == "ECDSAP256" || kind == "ECDSAP384" { 3 } else { 2 };
            assert_eq!(read.serialized_der()[head..head + 3], [2, 1, 0], "{kind}");
        }
    }

    #[test]
    fn each_key_is_another() {
        assert_ne!(make("ED25519").unwrap().0.pem, make("ED25519").unwrap().0.pem);
    }

    #[test]
    fn a_type_that_is_not_to_be_had_is_named_with_those_that_are() {
        for kind in ["RSA3072", "RSA4096", "ECDSAP521", "x"] {
            let why = make(kind).unwrap_err();
            assert_eq!(
                why,
                format!(
                    "keyType {kind} is not supported by this node: it makes ECDSAP256, ECDSAP384 and ED25519"
                )
            );
        }
    }

    #[test]
    fn no_key_is_in_what_is_printed_of_it() {
        let key = Key { pem: "verysecret".to_owned(), public: Vec::new() };
        assert!(!format!("{key:?}").contains("verysecret"));
    }
}
