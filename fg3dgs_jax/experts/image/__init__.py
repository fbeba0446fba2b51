"""Networks that look at whole pictures: LPIPS, FID's Inception."""
