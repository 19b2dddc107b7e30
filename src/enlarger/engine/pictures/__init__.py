"""Pictures: pixels with their depth, alpha and metadata; files in and out; exact-size resizing."""
