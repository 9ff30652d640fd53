//! Tells of a pull that takes long how far it is.
//!
//! The kubelet says `Pulling` once, and nothing more before the end: a download of minutes looks like one that hangs.

use std::convert::Infallible;

use nodule_image::{Progress, Reference};
use tokio::time::sleep;

use crate::events::Kind;
use crate::host::Host;
use crate::teller::Teller;

/// Says it after `slow_pull`, and each time after twice the time: seven Events in the first hour by default. A pod has 25,
/// and from the tenth on those that are alike are one (`correlate.rs`).
pub(crate) async fn tell(host: &Host, reference: &Reference, teller: &Teller<'_>) -> Infallible {
    let mut wait = host.config.slow_pull;
    loop {
        sleep(wait).await;
        if let Some(progress) = host.images.progress(reference) {
            let name = &teller.asked.want.image;
            let message = format!("Pulling image \"{name}\": {}", words(progress));
            teller.say(Kind::Normal, "Pulling", &message);
        }
        wait = wait.saturating_mul(2);
    }
}

/// In millions of bytes, and tenths of them where there are few.
fn words(Progress { done, size }: Progress) -> String {
    let digits = usize::from(size < 10_000_000);
    #[expect(clippy::cast_precision_loss, reason = "it is rounded far more")]
    let millions = |bytes: u64| bytes as f64 / 1e6;
    format!("{:.digits$} of {:.digits$} MB", millions(done), millions(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_in_megabytes() {
        for (done, size, expected) in [
            (40_400_000, 200_000_000, "40 of 200 MB"),
            (0, 10_000_000, "0 of 10 MB"),
            (1_250_000, 9_999_999, "1.2 of 10.0 MB"),
            (17, 300_000, "0.0 of 0.3 MB"),
        ] {
            assert_eq!(words(Progress { done, size }), expected);
        }
    }
}
