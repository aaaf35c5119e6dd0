"""One module a chapter: what each exercise tries, what is right, what goes wrong and what to say then."""
