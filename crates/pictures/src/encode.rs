//! From pixels to files that keep a budget: the quality goes down until they fit, and where even the lowest does not, fine detail goes.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x4;
use fast_image_resize::{ResizeOptions, Resizer};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage, RgbaImage};

use crate::{PictureError, Variant};

/// Qualities to try, the best first. Nobody sees the difference between the first and a better one on a page.
const QUALITIES: [u8; 16] = [82, 78, 74, 70, 65, 60, 55, 50, 44, 38, 32, 26, 20, 15, 10, 5];

/// The picture at that width, which is at most its own; its height follows.
pub(crate) fn scaled(picture: &RgbaImage, width: u32) -> Result<RgbaImage, PictureError> {
    let height = (u64::from(picture.height()) * u64::from(width)).div_ceil(u64::from(picture.width())) as u32;
    resized(picture, width, height)
}

/// A picture's files, both of `bytes_max` bytes at most.
pub(crate) fn variant(picture: &RgbaImage, bytes_max: usize) -> Result<Variant, PictureError> {
    let is_opaque = picture.pixels().all(|pixel| pixel.0[3] == u8::MAX);
    let webp = fitted(picture, bytes_max, "WebP", |picture, quality| webp(picture, is_opaque, quality))?;
    let jpeg = fitted(picture, bytes_max, "JPEG", |picture, quality| jpeg(&on_white(picture), quality))?;
    Ok(Variant { width: picture.width(), height: picture.height(), webp, jpeg })
}

/// The best file that fits.
fn fitted(
    picture: &RgbaImage,
    bytes_max: usize,
    format: &'static str,
    encode: impl Fn(&RgbaImage, u8) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, PictureError> {
    let told = |reason| PictureError::Unwritable { format, reason };
    // Those that may still be the best that fits: the first is tried first, since most pictures fit with it, then the middle of the rest.
    let (mut from, mut to, mut best) = (0, QUALITIES.len(), None);
    while from < to {
        let tried = if to == QUALITIES.len() && from == 0 { 0 } else { from.midpoint(to) };
        let file = encode(picture, QUALITIES[tried]).map_err(told)?;
        if file.len() <= bytes_max {
            (to, best) = (tried, Some(file));
        } else {
            from = tried + 1;
        }
    }
    if let Some(file) = best {
        return Ok(file);
    }
    // Noise. Half of the detail at each step, down to one colour, which fits.
    let (width, height) = picture.dimensions();
    let (mut coarse_width, mut coarse_height) = (width, height);
    while coarse_width > 1 || coarse_height > 1 {
        (coarse_width, coarse_height) = (coarse_width.div_ceil(2), coarse_height.div_ceil(2));
        let coarse = resized(&resized(picture, coarse_width, coarse_height)?, width, height)?;
        let file = encode(&coarse, QUALITIES[QUALITIES.len() / 2]).map_err(told)?;
        if file.len() <= bytes_max {
            return Ok(file);
        }
    }
    Err(told(format!("not even one colour fits into {bytes_max} bytes")))
}

fn webp(picture: &RgbaImage, is_opaque: bool, quality: u8) -> Result<Vec<u8>, String> {
    let mut config = webp::WebPConfig::new().map_err(|()| "the encoder has no settings".to_owned())?;
    config.quality = f32::from(quality);
    // Of an opaque picture it is not looked at.
    config.alpha_quality = i32::from(quality);
    let (width, height) = picture.dimensions();
    let encoded = if is_opaque {
        webp::Encoder::from_rgb(&on_white(picture), width, height).encode_advanced(&config)
    } else {
        webp::Encoder::from_rgba(picture, width, height).encode_advanced(&config)
    };
    encoded.map(|file| file.to_vec()).map_err(|error| format!("{error:?}"))
}

fn jpeg(picture: &RgbImage, quality: u8) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    let (width, height) = picture.dimensions();
    let mut encoder = JpegEncoder::new_with_quality(&mut file, quality);
    let written = encoder.encode(picture, width, height, ExtendedColorType::Rgb8);
    written.map(|()| file).map_err(|error| error.to_string())
}

/// Without transparency: what shines through is white.
fn on_white(picture: &RgbaImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let mut opaque = RgbImage::new(width, height);
    for (to, from) in opaque.pixels_mut().zip(picture.pixels()) {
        let [red, green, blue, alpha] = from.0.map(u32::from);
        let mixed = |channel: u32| ((channel * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        to.0 = [mixed(red), mixed(green), mixed(blue)];
    }
    opaque
}

/// Lanczos3 over colours weighted with their alpha, so that what cannot be seen does not stain an edge.
fn resized(picture: &RgbaImage, width: u32, height: u32) -> Result<RgbaImage, PictureError> {
    if picture.dimensions() == (width, height) {
        return Ok(picture.clone());
    }
    let told = |reason: String| PictureError::Unwritable { format: "pixels", reason };
    let source = TypedImageRef::<U8x4>::from_buffer(picture.width(), picture.height(), picture);
    let source = source.map_err(|error| told(error.to_string()))?;
    let mut scaled = RgbaImage::new(width, height);
    let target = TypedImage::<U8x4>::from_buffer(width, height, &mut scaled);
    let mut target = target.map_err(|error| told(error.to_string()))?;
    // The typed way: the other one compiles every kind of pixel that there is.
    let resize = Resizer::new().resize_typed(&source, &mut target, &ResizeOptions::new());
    resize.map_err(|error| told(error.to_string()))?;
    Ok(scaled)
}
