//! What is refused, and that nothing that is sent can do harm.

use image::{ImageFormat, Rgb, RgbImage};
use pictures::{Format, HEIGHT_PER_WIDTH_MAX, PictureError, SIZES, UPLOAD_BYTES_MAX, variants};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::files::{
    file, jpeg_with_metadata, moving, png_that_claims, png_with_metadata, quarters, webp_with_metadata,
};

#[test]
fn a_picture_that_claims_too_much_is_refused_before_it_is_decoded() {
    for (width, height) in [(60_000, 60_000), (8_001, 1), (1, 8_001), (8_000, 5_001)] {
        let refused = variants(&png_that_claims(width, height, 8));
        assert_eq!(refused, Err(PictureError::TooManyPixels { width, height }));
    }
    // More than can be counted.
    assert_eq!(variants(&png_that_claims(u32::MAX >> 1, u32::MAX >> 1, 8)), Err(PictureError::TooMuchMemory));
    // The same in a JPEG: height and width stand in its frame header.
    let mut jpeg = file(quarters(64, 64), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    assert_eq!(variants(&jpeg), Err(PictureError::TooManyPixels { width: 60_000, height: 60_000 }));
    // Within the bounds, and with no pixel behind the header.
    assert!(matches!(variants(&png_that_claims(6_000, 6_000, 8)), Err(PictureError::Damaged { .. })));
}

#[test]
fn a_picture_whose_pixels_take_too_much_memory_is_refused() {
    assert_eq!(variants(&png_that_claims(8_000, 5_000, 16)), Err(PictureError::TooMuchMemory));
}

#[test]
fn a_file_that_is_too_large_or_too_high_is_refused_with_the_bound() {
    let refused = variants(&vec![0; UPLOAD_BYTES_MAX + 1]).unwrap_err();
    assert!(refused.to_string().contains(&UPLOAD_BYTES_MAX.to_string()), "{refused}");
    let tower = |height: u32| variants(&file(RgbImage::new(20, height), ImageFormat::Png));
    assert!(tower(20 * HEIGHT_PER_WIDTH_MAX).is_ok());
    assert_eq!(tower(41), Err(PictureError::TooHigh { width: 20, height: 41 }));
    // It is its height as one sees it.
    assert_eq!(
        variants(&jpeg_with_metadata(RgbImage::new(41, 20), 6)),
        Err(PictureError::TooHigh { width: 20, height: 41 })
    );
}

#[test]
fn what_is_no_picture_is_refused() {
    for (what, bytes) in [
        ("nothing", &b""[..]),
        (
            "a GIF",
            b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
        ),
        ("a drawing", b"<svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>"),
        ("a page", b"<!DOCTYPE html><script>alert(1)</script>"),
        ("a bitmap", b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0"),
        ("a TIFF", b"II*\0\x08\0\0\0"),
        ("another RIFF", b"RIFF\x24\0\0\0WAVEfmt "),
    ] {
        assert_eq!(variants(bytes), Err(PictureError::NotAPicture), "{what}");
    }
}

#[test]
fn a_file_that_was_cut_short_is_refused_wherever_it_was_cut() {
    let picture = || quarters(96, 64);
    for whole in
        [jpeg_with_metadata(picture(), 1), file(picture(), ImageFormat::Png), file(picture(), ImageFormat::WebP)]
    {
        assert!(variants(&whole).is_ok());
        // What ends a PNG says nothing that is missed.
        for length in 0..whole.len() - 16 {
            let refused = variants(&whole[..length]).expect_err("it was cut");
            let expected = matches!(refused, PictureError::NotAPicture | PictureError::Damaged { .. });
            assert!(expected, "cut at {length}: {refused}");
        }
    }
}

/// Files to spoil.
fn good() -> Vec<Vec<u8>> {
    let picture = || RgbImage::from_fn(60, 40, |x, y| Rgb([(x * 4) as u8, (y * 6) as u8, (x * y) as u8]));
    let (width, height) = picture().dimensions();
    vec![
        jpeg_with_metadata(picture(), 5),
        png_with_metadata(picture(), 6),
        webp_with_metadata(&picture(), 7),
        webp::Encoder::from_rgb(&picture(), width, height).encode(60.0).to_vec(),
        moving(40, 30),
    ]
}

/// It is refused with words, or it is small.
fn is_bounded(upload: &[u8]) -> Result<(), TestCaseError> {
    match variants(upload) {
        Ok(variants) => {
            prop_assert!((1..=SIZES.len()).contains(&variants.len()));
            for (variant, size) in variants.iter().zip(SIZES) {
                prop_assert!(variant.width >= 1 && variant.width <= size.width);
                prop_assert!(Format::ALL.into_iter().all(|format| variant.file(format).len() <= size.bytes_max));
            }
        }
        Err(refused) => prop_assert!(!refused.to_string().is_empty()),
    }
    Ok(())
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_bytes_behind_a_pictures_beginning_are_refused_or_become_small(
        of in 0..5_usize, kept in 0..64_usize, bytes in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let good = &good()[of];
        is_bounded(&[&good[..kept.min(good.len())], &bytes].concat())?;
    }

    #[test]
    fn a_spoiled_picture_is_refused_or_becomes_small(
        of in 0..5_usize, spoiled in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut upload = good().swap_remove(of);
        for (at, byte) in spoiled {
            let at = at.index(upload.len());
            upload[at] = byte;
        }
        is_bounded(&upload)?;
    }
}
