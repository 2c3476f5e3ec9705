//! Sealing and opening in Rust against AES-256-GCM alone, by size.
//!
//! `cargo bench --bench crypto`; results stand in `benchmarks/RESULTS.md`.
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on panics")]

mod timing;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use framecache::crypto::{Keyring, MasterKey, Times};
use framecache::frame::locate_header;
use std::hint::black_box;

fn main() {
    let keyring = Keyring::new(MasterKey::from_bytes(&[7; 32]).expect("a key"), Vec::new()).expect("one key");
    let name = keyring.name("default", "users:42").expect("short");
    let times = Times { created: Some(1_700_000_000_000), until: Some(1_700_000_060_000) };
    let alone = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes"));
    for (size, calls) in [(100, 20_000), (64 << 10, 1000), (64 << 20, 1)] {
        let plain = vec![7_u8; size];
        let mut out = vec![1_u8; size];
        let sealed = keyring.seal("default", &name, &plain, times).expect("sealed");
        let header = &sealed[..locate_header(&sealed).expect("a frame").end];
        let nonce = || Nonce::assume_unique_for_key([9; 12]);
        let mut tag = [0; 16];
        let (mut encrypted, mut opened_out) = (plain.clone(), plain.clone());
        let encrypted_tag =
            alone.seal_in_place_separate_tag(nonce(), Aad::from(header), &mut encrypted).expect("short");
        timing::compare(
            &format!("{size} bytes"),
            21,
            calls,
            vec![
                (
                    "AES-256-GCM alone, to warm memory",
                    Box::new(|| {
                        let associated = Aad::from(header);
                        let sealed =
                            alone.seal_out_of_place_scatter(nonce(), associated, &plain, &mut out, &[], &mut tag);
                        black_box(sealed).expect("short");
                    }),
                ),
                (
                    "AES-256-GCM alone, opening",
                    Box::new(|| {
                        let opened = alone.open_separate_gather(
                            nonce(),
                            Aad::from(header),
                            &encrypted,
                            encrypted_tag.as_ref(),
                            &mut opened_out,
                        );
                        black_box(opened).expect("own");
                    }),
                ),
                ("seal", Box::new(|| drop(black_box(keyring.seal("default", &name, &plain, times).expect("sealed"))))),
                (
                    "open, and wiping",
                    Box::new(|| drop(black_box(keyring.open("default", &name, &sealed).expect("own")))),
                ),
            ],
        );
    }
}
