// The numbers that define a rendering; rasterizer/reference.py has the same values and a test
// compares them.
#pragma once

namespace fg {

constexpr int kTileSize = 16;               // px; a tile row of floats is one 64-byte line
constexpr int kMaxChannels = 32;            // colour channels blended in one pass
constexpr float kAlphaMax = 0.99f;          // keeps 1 - alpha away from 0; zero slope above
constexpr float kAlphaMin = 1.0f / 255.0f;  // below one grey level a Gaussian is skipped
constexpr float kTransmittanceMin = 1e-4f;  // a pixel stops before it would fall below this
// The Jacobian is clamped this share of tan(fov/2) outside the image.
constexpr float kFrustumMargin = 0.3f;
// Least antialiasing factor: it keeps its square root's slope finite.
constexpr float kCompensationMin = 0.005f;
// Exponents are clamped here: alpha is long below kAlphaMin, and no denormals.
constexpr float kMinPower = -16.0f;

constexpr int kSlotHead = 6;  // sums of a (tile, Gaussian) pair before those of its D colours

}  // namespace fg
