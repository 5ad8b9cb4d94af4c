"""What comes over the picture: questions, values, columns, help, and all of one program."""
