"""The report of `keras-diagwise report`: figures, page, lines on the terminal."""
