// Wide tables scroll sideways in a frame that the theme puts around them; so that the keyboard can scroll it, too.
new MutationObserver(() => {
  for (const frame of document.querySelectorAll('.md-typeset__scrollwrap:not([tabindex])')) frame.tabIndex = 0
}).observe(document, {childList: true, subtree: true})
