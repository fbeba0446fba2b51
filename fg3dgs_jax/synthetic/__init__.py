"""The embedded subject: a head that is computed, with sound, labels and poses that are exact."""
