// The editor: sends one request at a time and shows what comes back.
//
// One request is under way at most; of those that wait, a newer wish takes the place of an older one and of previews, so
// that nothing piles up and no stale answer can come after a newer one. What is shown is always the last answer, which is
// what the server holds in the state of this user's session.

const PATIENCE = 60000, IDLE = 1000, LARGEST = 6 * 2 ** 20
const $ = (selector) => element.querySelector(selector)
const desk = $('.desk'), slider = $('#edit-strength')
let view = null, ticket = 0, under_way = null, waiting = [], timer = 0, busy = 0, idle = 0, dragging = false, page = 0, sources = 0

// Several edits at once take longer: there a preview comes first.
const form = controls($('.controls'), props.schema, (settled) => {
  if (settled && Object.keys(form.read().asked).length > 1) wish(false)
  wish(settled)
})

// --- requests ---

function send(request) {
  clearTimeout(idle)
  waiting = waiting.filter((one) => one.do !== 'preview' && !(one.do === 'ask' && request.do === 'ask'))
  waiting.push(request)
  next()
}

function next() {
  if (under_way || !waiting.length) return
  under_way = {...waiting.shift(), ticket: ++ticket}
  busy = setTimeout(() => { if (!['preview', 'frame', 'gallery'].includes(under_way.do)) { desk.classList.add('busy'); say('Working …') } }, 150)
  timer = setTimeout(() => answered({error: 'The server did not answer; try again, or reload the page.'}), PATIENCE)
  trigger('submit', under_way)
}

function wish(settled) {
  if (view) send({do: settled ? 'ask' : 'preview', ...form.read(), strength: +slider.value})
}

function answered(answer) {
  clearTimeout(timer)
  clearTimeout(busy)
  const request = under_way
  under_way = null
  desk.classList.remove('busy')
  show(answer, request)
  next()
}

watch('value', () => {
  const answer = props.value
  if (answer.ticket === under_way?.ticket) answered(answer)
  else if (answer.ticket === null) show(answer, null)  // another tab has opened a source
})

// --- what is shown ---

const say = (text) => { $('.status').textContent = text }
const picture = (image, into) => {
  if (into.getAttribute('src') !== image.src) into.src = image.src
  into.alt = image.alt
  into.classList.toggle('crisp', image.width < 200)
}
const figure = (image, ...caption) => {
  const shown = image.src ? element_of('img') : element_of('div', {class: 'no-image'})
  if (image.src) picture(image, shown)
  return element_of('figure', {}, shown, element_of('figcaption', {}, ...caption))
}
const mark = (what) => { $('.mark').dataset.mark = $('.mark').textContent = what }

function show(answer, request) {
  if (!answer.frame && !answer.gallery) {  // which nobody has asked for just now
    $('.error').hidden = !answer.error
    $('.error').textContent = answer.error ?? ''
  }
  if (answer.error) say('')
  if (answer.gallery) gallery(answer.gallery)
  if (answer.preview && view) {
    picture(answer.preview, $('.edited'))
    mark('preview')
    $('.caption').textContent = answer.preview.caption
  }
  if (answer.session) session(answer.session, request)
  if (answer.baselines) cards('.baselines', answer.baselines)
  if (answer.strengths) cards('.strengths', answer.strengths)
  if (answer.file) save(answer.file)
  if (answer.frame) { frames.set(request.key, answer.frame); strip() }
  if (answer.error && view && !waiting.length) session(view, null)  // the controls go back to what stands
}

function gallery(images) {
  $('.thumbs').replaceChildren(...images.map((image) => {
    const button = element_of('button', {type: 'button', class: 'thumb', 'data-number': image.number, title: image.alt}, element_of('img', {src: image.src, alt: image.alt, class: 'crisp'}))
    button.addEventListener('click', () => send({do: 'pick', number: image.number}))
    return button
  }))
}

function session(now, request) {
  const fresh = !view || view.source.original.src !== now.source.original.src
  view = now
  sources += fresh
  $('.bench').hidden = false
  $('.source-name').textContent = now.source.name
  if (fresh) {
    if ($('.ways').contains(document.activeElement)) $('.source > summary').focus()
    $('.source').open = false
  }
  picture(now.source.original, $('.original'))
  picture(now.source.reconstruction, $('.reconstruction'))
  $('.warning').hidden = !now.source.warning
  $('.warning').textContent = now.source.warning
  picture(now.image, $('.edited'))
  mark(now.steps.length ? 'refined' : 'no edit yet')
  $('.caption').textContent = now.steps.length ? now.image.caption : ''
  const framed = now.source.original.src !== now.source.reconstruction.src
  $('.given').hidden = !framed
  $('.source-caption').textContent = framed ? 'as the model sees it' : 'source'
  if (!waiting.length && !dragging) {
    form.show(now)
    slider.value = now.strength
    strength_text()
  }
  $('[data-do=undo]').disabled = !now.undo
  $('[data-do=redo]').disabled = !now.redo
  $('[data-do=reset]').disabled = !now.steps.length
  frames.set(key_of(0), now.source.reconstruction)
  frames.set(key_of(now.steps.length), now.image)
  for (const [number, step] of now.steps.entries()) outdated.set(step.text, frames.get(key_of(number + 1)) ?? outdated.get(step.text))
  strip()
  changes(now.changes)
  for (const more of element.querySelectorAll('details.more')) more.open = false
  say(fresh ? `Source: ${now.source.name}. ${now.source.warning ?? ''}` : request === null ? '' : now.said)
}

// The image after the first steps. One that is missing is asked for when nothing has happened for a while, so that it
// keeps nobody waiting; until then the last image of that step stands there, dimmed.
const frames = new Map(), outdated = new Map()
const key_of = (count) => JSON.stringify([sources, count && view.strength, view.steps.slice(0, count)])

function strip() {
  const focused = $('.strip').contains(document.activeElement)
  $('.strip').replaceChildren(...[{text: 'source'}, ...view.steps].map((step, number) => {
    const known = frames.get(key_of(number)), frame = known ?? outdated.get(step.text), here = number === view.steps.length
    const image = frame ? element_of('img') : element_of('div', {class: 'no-image'})
    if (frame) picture({...frame, alt: ''}, image)
    image.classList.toggle('old', !known)
    const button = element_of('button', {type: 'button', class: 'step', 'aria-current': here ? 'step' : null, title: here ? 'this is shown' : 'go back to here'}, image, element_of('span', {}, step.text))
    button.addEventListener('click', () => { if (!here) send({do: 'back', steps: number}) })
    return element_of('li', {}, button)
  }))
  if (focused) $('.step[aria-current]').focus()
  $('.strip').scrollLeft = $('.strip').scrollWidth
  const missing = [...view.steps.keys()].find((number) => !frames.has(key_of(number)))
  clearTimeout(idle)
  if (missing !== undefined) idle = setTimeout(() => { if (!under_way) send({do: 'frame', steps: missing, key: key_of(missing)}) }, IDLE)
  while (frames.size > 200) frames.delete(frames.keys().next().value)
}

function changes(found) {
  const list = (title, items, kind) => items.length ? [element_of('dt', {}, title), element_of('dd', {class: kind},
    element_of('ul', {}, ...items.map((item) => element_of('li', {}, item))))] : []
  $('.changes').replaceChildren(element_of('p', {}, found.summary),
    element_of('dl', {}, ...list('asked for', found.asked, 'asked'), ...list('came with it', found.followed, 'followed'), ...list('moved unasked', found.moved, 'moved')))
}

function cards(place, images) {
  $(place).replaceChildren(...images.map((image) => figure(image, element_of('strong', {}, image.title),
    ...[image.about, image.note].filter(Boolean).map((text) => element_of('span', {}, text)))))
}

function save(file) {
  const blob = file.text === undefined ? file.href : URL.createObjectURL(new Blob([file.text], {type: 'application/json'}))
  const link = element_of('a', {href: blob, download: file.name})
  link.click()
  say(`Saved ${file.name}.`)
}

// --- what people do ---

const strength_text = () => {
  const text = (+slider.value).toFixed(2)
  $('output[for=edit-strength]').textContent = text
  slider.setAttribute('aria-valuetext', text)
}
slider.addEventListener('input', () => { strength_text(); dragging = true; wish(false) })
slider.addEventListener('change', () => { dragging = false; wish(true) })

for (const button of element.querySelectorAll('button[data-do]')) {
  button.addEventListener('click', () => {
    const what = button.dataset.do
    if (what === 'image') save({name: 'edited.png', href: view.image.src})
    else if (what === 'gallery') send({do: what, page: ++page})
    else send({do: what, ...(what === 'sample' ? {seed: +$('.seed').value} : {})})
  })
}
$('.seed').addEventListener('keydown', (event) => { if (event.key === 'Enter') send({do: 'sample', seed: +$('.seed').value}) })
for (const more of element.querySelectorAll('details.more')) {
  more.addEventListener('toggle', () => {
    if (!more.open) more.querySelector('.cards').replaceChildren()
    else { more.querySelector('.cards').replaceChildren(element_of('p', {class: 'hint'}, 'Working …')); send({do: more.dataset.do}) }
  })
}

function take(file) {
  if (!file) return
  if (file.size > LARGEST) return show({error: `The file has ${(file.size / 2 ** 20).toFixed(1)} MiB, at most ${LARGEST / 2 ** 20} are taken; make it smaller.`}, null)
  const reader = new FileReader()
  reader.onload = () => send({do: 'open', name: file.name, data: reader.result.split(',', 2)[1] ?? ''})
  reader.onerror = () => show({error: `The browser could not read ${file.name}.`}, null)
  reader.readAsDataURL(file)
}
$('.file').addEventListener('change', (event) => { take(event.target.files[0]); event.target.value = '' })
const drop = $('.drop')
for (const kind of ['dragover', 'dragleave', 'drop']) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.toggle('over', kind === 'dragover') })
}
drop.addEventListener('drop', (event) => take(event.dataTransfer.files[0]))

const visible = () => element.isConnected && desk.offsetParent !== null
const typing = () => document.activeElement?.matches('textarea, [contenteditable=true], input:not([type=radio], [type=range], [type=checkbox], [type=button])')
document.addEventListener('paste', (event) => { if (visible() && !typing()) take([...event.clipboardData.files][0]) })
document.addEventListener('keydown', (event) => {
  if (!visible() || typing() || !(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== 'z' || !view) return
  event.preventDefault()
  const what = event.shiftKey ? 'redo' : 'undo'
  if (waiting.length || view[what]) send({do: what})
})

if (props.value?.session) show(props.value, null)  // another tab has opened a source before this one was ever seen

// The gallery is asked for when the tab is first seen, so that it does not weigh on who never opens it.
new IntersectionObserver((seen, observer) => {
  if (!seen.some((one) => one.isIntersecting)) return
  observer.disconnect()
  send({do: 'gallery', page})
}).observe(desk)
