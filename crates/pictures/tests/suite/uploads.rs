//! What becomes of pictures as people have them.

use image::{ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use pictures::{Format, SIZES, Variant, variants};

use crate::files::{
    BLUE, GREEN, PLANTED, RED, WHITE, file, jpeg_with_metadata, moving, noise, png_with_metadata, quarters,
    webp_with_metadata,
};

/// The file as a browser would see it.
fn seen(variant: &Variant, format: Format) -> RgbImage {
    let kind = match format {
        Format::Webp => ImageFormat::WebP,
        Format::Jpeg => ImageFormat::Jpeg,
    };
    let picture = image::load_from_memory_with_format(variant.file(format), kind).unwrap().into_rgb8();
    assert_eq!(picture.dimensions(), (variant.width, variant.height));
    picture
}

fn is_near(pixel: &Rgb<u8>, colour: [u8; 3]) -> bool {
    pixel.0.iter().zip(colour).all(|(found, wanted)| found.abs_diff(wanted) < 30)
}

/// Colours in the middle of the four quarters: above left and right, below left and right.
fn assert_quarters(picture: &RgbImage, colours: [[u8; 3]; 4], what: &str) {
    let (width, height) = picture.dimensions();
    let places = [(1, 1), (3, 1), (1, 3), (3, 3)];
    for ((x, y), colour) in places.into_iter().zip(colours) {
        let pixel = picture.get_pixel(width * x / 4, height * y / 4);
        assert!(is_near(pixel, colour), "{what}: {pixel:?} is not {colour:?}");
    }
}

#[test]
fn every_format_becomes_both_formats_in_the_widths_that_it_has() {
    for kind in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let variants = variants(&file(quarters(1_600, 1_200), kind)).unwrap();
        let sizes: Vec<_> = variants.iter().map(|variant| (variant.width, variant.height)).collect();
        assert_eq!(sizes, [(320, 240), (640, 480), (1_280, 960)], "{kind:?}");
        for variant in &variants {
            for format in Format::ALL {
                assert_quarters(&seen(variant, format), [RED, GREEN, BLUE, WHITE], &format!("{kind:?} as {format:?}"));
            }
        }
    }
}

#[test]
fn a_small_picture_is_not_enlarged() {
    for (width, height, expected) in
        [(1, 1, vec![(1, 1)]), (500, 3, vec![(320, 2), (500, 3)]), (640, 2, vec![(320, 1), (640, 2)])]
    {
        let variants = variants(&file(quarters(width, height), ImageFormat::Png)).unwrap();
        let sizes: Vec<_> = variants.iter().map(|variant| (variant.width, variant.height)).collect();
        assert_eq!(sizes, expected);
        variants.iter().for_each(|variant| Format::ALL.into_iter().for_each(|format| drop(seen(variant, format))));
    }
}

#[test]
fn nothing_that_a_camera_wrote_is_left() {
    let picture = || quarters(700, 500);
    let uploads =
        [jpeg_with_metadata(picture(), 1), png_with_metadata(picture(), 1), webp_with_metadata(&picture(), 1)];
    for upload in uploads {
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|found| found == text.as_bytes());
        assert!(has(&upload, PLANTED), "the test plants something");
        for variant in variants(&upload).unwrap() {
            for format in Format::ALL {
                for text in [PLANTED, "GPS", "Exif", "EXIF", "eXIf", "http", "XMP ", "ICC", "II*", "Comment"] {
                    assert!(!has(variant.file(format), text), "{text} in {format:?}");
                }
            }
        }
    }
}

#[test]
fn a_picture_stands_upright_however_the_camera_was_held() {
    let table = [
        [RED, GREEN, BLUE, WHITE],
        [GREEN, RED, WHITE, BLUE],
        [WHITE, BLUE, GREEN, RED],
        [BLUE, WHITE, RED, GREEN],
        [RED, BLUE, GREEN, WHITE],
        [BLUE, RED, WHITE, GREEN],
        [WHITE, GREEN, BLUE, RED],
        [GREEN, WHITE, RED, BLUE],
    ];
    for (orientation, colours) in (1..).zip(table) {
        let picture = || quarters(320, 200);
        for upload in [
            jpeg_with_metadata(picture(), orientation),
            png_with_metadata(picture(), orientation),
            webp_with_metadata(&picture(), orientation),
        ] {
            let variants = variants(&upload).unwrap();
            let last = variants.last().unwrap();
            let upright = if orientation < 5 { (320, 200) } else { (200, 320) };
            assert_eq!((last.width, last.height), upright, "orientation {orientation}");
            for format in Format::ALL {
                assert_quarters(&seen(last, format), colours, &format!("orientation {orientation}"));
            }
        }
    }
}

#[test]
fn what_is_transparent_stays_so_and_is_white_where_it_cannot() {
    let mut picture = RgbaImage::from_pixel(320, 200, Rgba([0, 0, 0, 0]));
    for x in 0..160 {
        (0..200).for_each(|y| picture.put_pixel(x, y, Rgba([220, 20, 20, 255])));
    }
    let variants = variants(&file(picture, ImageFormat::Png)).unwrap();
    let webp = image::load_from_memory(&variants[0].webp).unwrap().into_rgba8();
    assert_eq!((webp.get_pixel(80, 100).0[3], webp.get_pixel(240, 100).0[3]), (255, 0));
    let jpeg = seen(&variants[0], Format::Jpeg);
    assert!(is_near(jpeg.get_pixel(80, 100), RED) && is_near(jpeg.get_pixel(240, 100), [255; 3]));
}

#[test]
fn of_a_file_that_moves_the_first_picture_counts() {
    let variants = variants(&moving(320, 200)).unwrap();
    assert!(is_near(seen(&variants[0], Format::Jpeg).get_pixel(160, 100), RED));
}

#[test]
fn a_budget_is_kept_whatever_the_picture_shows() {
    let mut see_through = RgbaImage::new(640, 480);
    fastrand::Rng::with_seed(2).fill(&mut see_through);
    let mut uploads = vec![
        ("noise", webp_of(&noise(4_000, 3_000, 1))),
        ("noise of its own size", webp_of(&noise(640, 480, 3))),
        ("noise that shines through", file(see_through, ImageFormat::Png)),
    ];
    uploads.push(("one colour, as high as may be", file(RgbImage::new(1_280, 2_560), ImageFormat::Png)));
    for (what, upload) in uploads {
        for (variant, size) in variants(&upload).unwrap().iter().zip(SIZES) {
            for format in Format::ALL {
                let bytes = variant.file(format).len();
                assert!(bytes <= size.bytes_max, "{what}, {format:?}: {bytes} of {} bytes", size.bytes_max);
                seen(variant, format);
            }
        }
    }
}

/// As a lossy file: a picture of noise would not fit into an upload else.
fn webp_of(picture: &RgbImage) -> Vec<u8> {
    webp::Encoder::from_rgb(picture, picture.width(), picture.height()).encode(80.0).to_vec()
}

#[test]
fn the_same_upload_gives_the_same_files() {
    let upload = jpeg_with_metadata(quarters(700, 500), 6);
    assert_eq!(variants(&upload).unwrap(), variants(&upload).unwrap());
}
