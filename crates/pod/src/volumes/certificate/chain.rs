//! What a signer gave: pure.

use pem::{EncodeConfig, LineEnding, Pem};

/// Of a certificate's block (RFC 7468, 5.1).
const LABEL: &str = "CERTIFICATE";

/// A certificate chain as the pod reads it: without what stands between and within the blocks beside the certificates.
///
/// # Errors
///
/// It is no chain, there is something else in it, or its first certificate is not for this public key (the bits of it).
pub(super) fn clean(chain: &str, public: &[u8]) -> Result<String, String> {
    let blocks = pem::parse_many(chain).map_err(|error| format!("is not PEM: {error}"))?;
    if let Some(other) = blocks.iter().find(|block| block.tag() != LABEL) {
        return Err(format!("has a block {:?}, which is no certificate", other.tag()));
    }
    let leaf = blocks.first().ok_or("has no certificate")?;
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf.contents())
        .map_err(|error| format!("has a first certificate that is not to be read: {error}"))?;
    if leaf.public_key().subject_public_key.data.as_ref() != public {
        return Err("has a first certificate that is not for this pod's key".to_owned());
    }
    Ok(blocks.into_iter().map(|block| pem(LABEL, block.into_contents())).collect())
}

/// One block (RFC 7468).
pub(super) fn pem(label: &str, content: Vec<u8>) -> String {
    let form = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(label, content), form)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData};

    use super::*;

    #[test]
    fn a_chain_is_certificates_alone_and_the_first_is_for_the_key() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let of = |key| CertificateParams::default().self_signed(key).unwrap().pem();
        let (leaf, next) = (of(&key), of(&other));
        let noisy = format!("# mine\n{leaf}text\n{next}");
        assert_eq!(clean(&noisy, key.der_bytes()), Ok(format!("{leaf}{next}")));
        let headed = leaf.replacen("-----\n", "-----\nComment: x\n\n", 1);
        assert_eq!(clean(&headed, key.der_bytes()), Ok(leaf.clone()));
        let foreign = clean(&noisy, other.der_bytes()).unwrap_err();
        assert!(foreign.ends_with("not for this pod's key"), "{foreign}");
        let more = clean(&format!("{leaf}{}", key.serialize_pem()), key.der_bytes()).unwrap_err();
        assert_eq!(more, "has a block \"PRIVATE KEY\", which is no certificate");
        assert_eq!(clean("", &[]), Err("has no certificate".to_owned()));
        let broken = clean(&pem("CERTIFICATE", vec![1, 2]), &[]).unwrap_err();
        assert!(broken.contains("not to be read"), "{broken}");
    }
}
