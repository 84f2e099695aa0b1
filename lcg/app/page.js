// What belongs to the page as a whole: tabs by their names in the address, and which report is shown.
(() => {
  const tab = (name) => document.querySelector(`#tabs button[role=tab][data-tab-id="${CSS.escape(name)}"]`)
  const open = () => { const name = location.hash.slice(1); if (name) tab(name)?.click() }
  addEventListener('hashchange', open)
  document.addEventListener('click', (event) => {
    const link = event.target.closest?.('.reports a')
    if (link) for (const one of document.querySelectorAll('.reports a')) one === link ? one.setAttribute('aria-current', 'true') : one.removeAttribute('aria-current')
  })
  const named = () => {
    const chosen = document.querySelector('#tabs button[role=tab][aria-selected=true]')
    if (chosen) history.replaceState(null, '', `#${chosen.dataset.tabId}`)
  }
  const waiting = new MutationObserver(() => {
    if (!tab('generate')) return
    waiting.disconnect()
    open()
    new MutationObserver(named).observe(document.querySelector('#tabs'), {subtree: true, attributeFilter: ['aria-selected']})
  })
  waiting.observe(document.documentElement, {childList: true, subtree: true})
})()
