"""The page that shows what preprocessing found."""
